// The keys that sign stream tokens.
import { action, when } from "../account/forms.ts";
import { el } from "../dom.ts";
import { alert, LiveTable } from "./live.ts";
import type { Open } from "./pages.ts";
import type { StreamKey } from "./shapes.ts";

export const keys: Open = (api, again) => {
  const below = alert();
  const table = new LiveTable<StreamKey>(
    "Keys",
    [
      { head: "Key", text: ({ kid }) => kid },
      { head: "State", text: ({ state }) => state, tone: ({ state }) => (state === "signing" ? "good" : "") },
      { head: "Made", text: ({ made_ms }) => when(made_ms) },
      { head: "Signs from", text: ({ signs_ms }) => when(signs_ms) },
    ],
    ({ kid }) => kid,
    "There are no keys yet.",
    (row) => [action("Withdraw", async () => (await api.change("DELETE", `stream-keys/${encodeURIComponent(row().kid)}`), again()), below, "Stolen? Take it out of use?")],
  );
  const next = action("Make the next key", async () => (await api.change("POST", "stream-keys"), again()), below);
  return {
    nodes: [el("p", "", "The next key is shown to data services before it signs; a withdrawn one opens nothing after they ask again. ", next), below, table.element],
    update: async () => table.update((await api.get<{ stream_keys: StreamKey[] }>("stream-keys")).stream_keys),
  };
};
