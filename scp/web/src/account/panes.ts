// The panes of the account: oneself, sessions, tokens; for administrators people and the audit log.
import { el } from "../dom.ts";
import type { Api, Entry, PaperLeft, SessionShown, TokenShown, User } from "./api.ts";
import { action, form, once, table, when } from "./forms.ts";

export type Pane = (api: Api, again: () => void) => Promise<(Node | string)[]>;

const said = () => {
  const made = el("p", "said");
  made.setAttribute("role", "alert");
  return made;
};

/** What a change gave that is shown once: the pane is drawn anew with it. */
let given: HTMLElement | null = null;

const shownOnce = (): HTMLElement => {
  const made = el("div", "", ...(given ? [given] : []));
  given = null;
  return made;
};

export const leave = async (api: Api): Promise<void> => {
  await api.change("POST", "sign-out");
  location.replace("/sign-in");
};

export const you: Pane = async (api, again) => {
  const below = said();
  const shown = el("div");
  const password = form(
    [
      { name: "old", label: "Present password", type: "password", autocomplete: "current-password" },
      { name: "new", label: "New password", type: "password", autocomplete: "new-password" },
    ],
    "Change the password",
    async (given) => {
      await api.change("PUT", "me/password", given);
      await api.again();
      again();
    },
  );
  const factor = api.me.second_factor ? dropFactor(api, again) : setFactor(api, shown, again);
  return [
    el("p", "", `${api.me.username}, ${api.me.role}. `, action("Sign out", () => leave(api), below)),
    below,
    el("h3", "", "Password"),
    el("p", "", "All your other sessions end."),
    password,
    el("h3", "", "Second factor"),
    factor,
    shown,
    ...(await identity(api, again)),
  ];
};

const PRESENT = { name: "password", label: "Present password", type: "password", autocomplete: "current-password" } as const;

async function identity(api: Api, again: () => void): Promise<Node[]> {
  const { provider, linked } = await api.get<{ provider: string | null; linked: boolean }>("me/identity");
  if (provider === null) return [];
  const change = linked
    ? form([PRESENT], "Take the link away", async (given) => {
        await api.change("DELETE", "me/identity", given);
        again();
      })
    : form([PRESENT], `Link to ${provider}`, async (given) => {
        const { address } = await api.change<{ address: string }>("POST", "me/identity", given);
        location.assign(address);
      });
  const text = linked ? `Your identity at ${provider} opens this account.` : `Sign in with ${provider} from then on.`;
  return [el("h3", "", `Identity at ${provider}`), el("p", "", text), change];
}

function dropFactor(api: Api, again: () => void): HTMLElement {
  return el(
    "div", "",
    el("p", "", "A code of your app is asked when you sign in."),
    form([PRESENT], "Take it off", async (given) => {
      await api.change("DELETE", "me/second-factor", given);
      await api.again();
      again();
    }),
  );
}

function setFactor(api: Api, shown: HTMLElement, again: () => void): HTMLElement {
  return form([PRESENT], "Set a second factor", async (given) => {
    const offered = await api.change<{ secret: string; picture: string }>("POST", "me/second-factor", given);
    const picture = el("img", "qr") as HTMLImageElement;
    picture.src = `data:image/svg+xml;utf8,${encodeURIComponent(withNamespace(offered.picture))}`;
    picture.alt = `The second factor's secret: ${offered.secret}`;
    const confirm = form(
      [{ name: "code", label: "The six digits that your app shows", autocomplete: "one-time-code" }],
      "That is my app",
      async (typed) => {
        const { recovery_codes: codes } = await api.change<{ recovery_codes: string[] }>("PUT", "me/second-factor", typed);
        await api.again();
        const done = el("button", "go", "I have written them down") as HTMLButtonElement;
        done.addEventListener("click", again);
        shown.replaceChildren(once("Recovery codes: each opens once what your app would", codes.join("\n")), done);
      },
    );
    const text = el("p", "", "Scan this with your app, or type ", el("code", "", offered.secret), " into it.");
    shown.replaceChildren(text, picture, confirm);
  });
}

const withNamespace = (svg: string) => (svg.includes("xmlns") ? svg : svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"'));

export const sessions: Pane = async (api, again) => {
  const below = said();
  const found = await api.get<SessionShown[]>("me/sessions");
  const rows = found.map((one) => [
    one.this ? "this one" : "",
    when(one.created_ms),
    when(one.seen_ms),
    one.address,
    one.agent.slice(0, 60),
    one.this
      ? ""
      : action("End", async () => (await api.change("DELETE", `me/sessions/${encodeURIComponent(one.id)}`), again()), below),
  ]);
  return [el("p", "", "Where you are signed in. What is ended closes within two seconds."), table(["", "Since", "Last seen", "From", "With", ""], rows, ""), below];
};

export const tokens: Pane = async (api, again) => {
  const [below, made] = [said(), shownOnce()];
  const found = await api.get<TokenShown[]>("me/tokens");
  const scopes = api.me.scopes.filter((scope) => scope !== "account");
  const rows = found.map((one) => [
    one.name, one.scopes.join(", "), when(one.used_ms), when(one.ends_ms),
    action("Revoke", async () => (await api.change("DELETE", `me/tokens/${encodeURIComponent(one.id)}`), again()), below, "Really revoke it?"),
  ]);
  const add = form(
    [
      { name: "name", label: "What it is for" },
      { name: "scopes", label: `What it may: some of ${scopes.join(", ")}`, value: scopes[0] ?? "" },
      { name: "days", label: "For how many days", type: "number", value: "90" },
    ],
    "Make a token",
    async ({ name, scopes: wanted, days }) => {
      const body = { name, scopes: (wanted ?? "").split(/[\s,]+/).filter(Boolean), days: Number(days) };
      const { token } = await api.change<{ token: string }>("POST", "me/tokens", body);
      given = once("The token, for the header Authorization: Bearer …", token);
      again();
    },
  );
  return [
    el("p", "", "For scripts. A token may at most what you may; the API is described at ", link("/openapi.json"), "."),
    table(["Name", "May", "Last used", "Until", ""], rows, "You have no tokens."), below, made, el("h3", "", "A new token"), add,
  ];
};

const wordsOf = ({ canceled, positions, problem }: PaperLeft): string =>
  problem || `Paper orders cancelled: ${canceled}; positions that stay: ${positions}.`;

const ROLES = ["viewer", "trader", "operator", "admin"] as const;

export const people: Pane = async (api, again) => {
  const [below, made] = [said(), shownOnce()];
  const found: User[] = [];
  for (let after: number | null = 0; after !== null && found.length < 1000; ) {
    const page: { users: User[]; next: number | null } = await api.get(`users?after=${after}`);
    found.push(...page.users);
    after = page.next;
  }
  const changed = async (one: User, what: { role?: string; disabled?: boolean }): Promise<void> => {
    const { paper } = await api.change<{ paper: PaperLeft | null }>("PATCH", `users/${one.id}`, what);
    if (paper) given = el("p", "", `${one.username} may not trade any more. ${wordsOf(paper)}`);
  };
  const rows = found.map((one) => {
    const role = el("select") as HTMLSelectElement;
    for (const name of ROLES) role.append(new Option(name));
    role.value = one.role;
    role.setAttribute("aria-label", `Role of ${one.username}`);
    role.addEventListener("change", () => void tell(below, () => changed(one, { role: role.value }), again));
    const state = one.disabled ? "disabled" : one.invited ? "invited" : one.second_factor ? "second factor" : "";
    const toggle = action(one.disabled ? "Enable" : "Disable", async () => {
      await changed(one, { disabled: !one.disabled });
      again();
    }, below);
    const newLink = action("New link", async () => {
      const { link: address } = await api.change<{ link: string }>("POST", `users/${one.id}/link`);
      made.replaceChildren(once(`For ${one.username}: the address of a new password, good once`, address));
    }, below);
    const out = action("Sign out", async () => (await api.change("DELETE", `users/${one.id}/sessions`), again()), below);
    const gone = action("Remove", async () => (await api.change("DELETE", `users/${one.id}`), again()), below, "Really remove?");
    return [one.username, one.email, role, state, el("span", "acts", newLink, out, toggle, gone)];
  });
  const add = form(
    [{ name: "username", label: "Name" }, { name: "email", label: "E-mail (or nothing)", type: "email", optional: true }, { name: "role", label: "Role", options: ROLES }],
    "Invite",
    async (typed) => {
      const { link: address, user } = await api.change<{ link: string; user: User }>("POST", "users", typed);
      given = once(`For ${user.username}: the address where they choose a password, within three days`, address);
      again();
    },
  );
  return [table(["Name", "E-mail", "Role", "", ""], rows, "Nobody."), below, made, el("h3", "", "Invite somebody"), add];
};

async function tell(below: HTMLElement, act: () => Promise<void>, again: () => void): Promise<void> {
  try {
    await act();
    again();
  } catch (refusal) {
    below.textContent = (refusal as { detail?: string }).detail ?? String(refusal);
  }
}

export const audit: Pane = async (api) => {
  const { entries } = await api.get<{ entries: Entry[] }>("audit?limit=200");
  const rows = entries.map((one) => [
    String(one.id), when(one.at_ms), one.who, one.action, one.target,
    Object.keys(one.detail).length ? JSON.stringify(one.detail) : "", one.address,
  ]);
  const text = "Who did what, the newest first. Each entry holds the hash of the one before it; all of them: ";
  return [el("p", "", text, link("/api/v1/audit/export"), "."), table(["", "When", "Who", "What", "Whom", "", "From"], rows, "Nothing yet.")];
};

function link(to: string): HTMLElement {
  const made = el("a", "", to) as HTMLAnchorElement;
  made.href = to;
  return made;
}
