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

const link = location.hash.slice(1);
if (location.pathname === "/welcome" && link) {
  welcome(link).catch((refusal: Refusal) => {
    show("sign-in");
    say(refusal.detail);
  });
} else {
  show("sign-in");
}
