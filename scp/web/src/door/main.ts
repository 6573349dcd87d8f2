// Signs people in: name and password, second factor, one-time links. The session lives in a cookie that no script can read.
import { send, type Refusal } from "../api/ask.ts";

type Name = "sign-in" | "second-factor" | "forgotten" | "new-password";

const form = (name: Name) => document.getElementById(name) as HTMLFormElement;
const said = document.getElementById("said")!;
const value = (of: HTMLFormElement, name: string) => (of.elements.namedItem(name) as HTMLInputElement).value;

function show(name: Name): void {
  for (const one of document.querySelectorAll<HTMLFormElement>("form")) one.hidden = one.id !== name;
  say("");
  form(name).querySelector<HTMLInputElement>("input:not([readonly]):not([hidden])")?.focus();
}

function say(text: string, good = false): void {
  said.textContent = text;
  said.toggleAttribute("data-good", good);
}

/** Run `ask` when a form is sent; its button rests meanwhile, and what was refused is said. */
function on(name: Name, ask: (of: HTMLFormElement) => Promise<void>): void {
  const of = form(name);
  of.addEventListener("submit", (event) => {
    event.preventDefault();
    const button = of.querySelector<HTMLButtonElement>("button[type=submit]")!;
    button.disabled = true;
    say("");
    ask(of)
      .catch((refusal: Refusal) => say(refusal.detail ?? String(refusal)))
      .finally(() => (button.disabled = false));
  });
}

function goOn(step: unknown): void {
  if ((step as { next: string }).next === "second-factor") show("second-factor");
  else location.replace("/");
}

on("sign-in", async (of) => {
  goOn(await send("POST", "/api/v1/sign-in", { username: value(of, "username"), password: value(of, "password") }));
});

on("second-factor", async (of) => {
  const { csrf } = (await send("GET", "/api/v1/sign-in")) as { csrf: string };
  goOn(await send("POST", "/api/v1/sign-in/code", { code: value(of, "code") }, csrf));
});

on("forgotten", async (of) => {
  await send("POST", "/api/v1/password-reset", { username: value(of, "username") });
  show("sign-in");
  say("If there is an address, the link is on its way. It is good for 15 minutes.", true);
});

const TITLES: Readonly<Record<string, [string, string]>> = {
  welcome: ["The first administrator", "Nobody can sign in yet. Choose your name and a password; you can invite others then."],
  invitation: ["Welcome", "Choose a password. Your name is what you sign in with."],
  reset: ["A new password", "All your other sessions end."],
};

/** Show what a one-time link is for; its secret stands behind the #, which no server sees. */
async function welcome(link: string): Promise<void> {
  const about = (await send("POST", "/api/v1/links/about", { link })) as { purpose: string; username: string | null };
  const of = form("new-password");
  const [title, text] = TITLES[about.purpose] ?? ["A new password", ""];
  of.querySelector("h2")!.textContent = title;
  of.querySelector("p")!.textContent = text;
  const name = of.elements.namedItem("username") as HTMLInputElement;
  name.value = about.username ?? "";
  name.readOnly = about.username !== null;
  on("new-password", async () => {
    if (value(of, "password") !== value(of, "again")) return say("The two passwords are not the same.");
    const username = about.username === null ? { username: name.value } : {};
    const step = await send("POST", "/api/v1/links/use", { link, password: value(of, "password"), ...username });
    history.replaceState(null, "", "/welcome");
    goOn(step);
  });
  show("new-password");
}

for (const button of document.querySelectorAll<HTMLButtonElement>("[data-show]")) {
  button.addEventListener("click", () => show(button.dataset["show"] as Name));
}

/** What came of signing in at the provider, by the code in the address. */
const WHY: Readonly<Record<string, string>> = {
  unreachable: "The provider does not answer. Try again in a moment, or sign in by password.",
  busy: "Too many sign in at once. Try again in a moment.",
  expired: "This try has ended, or began in another browser. Try again.",
  refused: "The provider did not let you in. Try again, or ask your administrator.",
  misconfigured: "The provider is not set up well. Your administrator finds the reason in the log.",
  none: "Signing in at a provider is not set up.",
  unknown: "No account here belongs to you yet. Ask your administrator, or sign in by password and link it in your account.",
  name_taken: "There is an account of your name. Sign in by password and link it in your account.",
  bad_username: "The provider gives you a name that cannot be used here. Ask your administrator.",
  disabled: "Your account is disabled. Ask your administrator.",
  linked: "That identity opens another account here.",
};

/** Show the provider's button where there is one, and what came of the last try there. */
async function provider(): Promise<void> {
  const asked = new URLSearchParams(location.search);
  const why = asked.get("why");
  if (asked.get("step") === "second-factor") show("second-factor");
  if (why) say(WHY[why] ?? "Signing in there failed.");
  const { provider: name } = (await send("GET", "/api/v1/sign-in/ways")) as { provider: string | null };
  const button = document.getElementById("provider") as HTMLAnchorElement;
  button.hidden = name === null;
  button.textContent = `Sign in with ${name}`;
}

const link = location.hash.slice(1);
if (location.pathname === "/welcome" && link) {
  welcome(link).catch((refusal: Refusal) => {
    show("sign-in");
    say(refusal.detail);
  });
} else {
  show("sign-in");
  provider().catch(() => undefined); // the password's form is there
}
