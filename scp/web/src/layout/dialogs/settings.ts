// The form of a widget's settings, made of what its kind says about them.
import { attributes, button, el } from "../../dom.ts";
import type { Field, Settings } from "../../widgets/widget.ts";
import type { Desk, Mounted } from "../desk.ts";
import { sheet } from "./sheet.ts";

const SYMBOLS_MAX = 500;

interface Part {
  element: HTMLElement;
  /** What was chosen; undefined = leave the setting out. Throws an Error in words. */
  value(): unknown;
}

export function openSettings(desk: Desk, { placed, kind }: Mounted): void {
  const fields = kind!.fields;
  const parts = fields.map((field) => part(field, placed.settings));
  const said = attributes(el("p", "said"), { role: "alert" });
  const go = button("go", "Apply");
  go.type = "submit";
  const form = el("form", "settings", ...parts.map(({ element }) => element), go, said) as HTMLFormElement;
  const dialog = sheet(`${kind!.title}: settings`, form);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    try {
      const given = fields.map(({ name }, at) => [name, parts[at]!.value()] as const).filter(([, value]) => value !== undefined);
      const others = Object.entries(placed.settings).filter(([name]) => !fields.some((field) => field.name === name));
      desk.configure(placed.id, Object.fromEntries([...others, ...given]));
      dialog.close();
    } catch (fault) {
      said.textContent = (fault as Error).message;
    }
  });
}

function part(field: Field, settings: Settings): Part {
  if (field.type === "columns") return columns(field, settings[field.name]);
  if (field.type === "choice") return choice(field, settings[field.name]);
  if (field.type === "check") {
    const input = box(settings[field.name] ?? field.default);
    return { element: labelled(field, el("label", "check", input, field.label)), value: () => input.checked };
  }
  const area = field.type === "symbols";
  const input = el(area ? "textarea" : "input") as HTMLInputElement;
  const known = settings[field.name] ?? field.default;
  input.value = Array.isArray(known) ? known.join(" ") : String(known ?? "");
  if (field.type === "number") attributes(input, { type: "number", step: "any", min: "0" });
  if (field.type === "text") input.maxLength = 64;
  const value = () => (field.type === "number" ? Number(input.value) || 0 : area ? symbols(input.value) : input.value.trim());
  return { element: labelled(field, el("label", "", field.label, input)), value };
}

function choice(field: Field & { type: "choice" }, known: unknown): Part {
  const select = el("select") as HTMLSelectElement;
  for (const [value, label] of field.options) select.append(new Option(label, value));
  select.value = field.options.some(([value]) => value === known) ? String(known) : (field.default ?? "");
  return { element: labelled(field, el("label", "", field.label, select)), value: () => select.value };
}

function columns(field: Field & { type: "columns" }, known: unknown): Part {
  const chosen = Array.isArray(known) && known.length > 0 ? (known as unknown[]) : field.default;
  const inputs = field.options.map(([value]) => box(chosen.includes(value)));
  const labels = field.options.map(([, label], at) => el("label", "check", inputs[at]!, label));
  const element = el("fieldset", "", el("legend", "", field.label), ...labels);
  return {
    element,
    value: () => {
      const found = field.options.filter((_, at) => inputs[at]!.checked).map(([value]) => value);
      if (found.length === 0) throw new Error(`Choose at least one of the ${field.label.toLowerCase()}.`);
      return found;
    },
  };
}

function labelled({ about }: Field, element: HTMLElement): HTMLElement {
  if (about) element.append(el("small", "", about));
  return element;
}

function box(checked: unknown): HTMLInputElement {
  const input = attributes(el("input"), { type: "checkbox" }) as HTMLInputElement;
  input.checked = checked === true;
  return input;
}

/** The symbols that were typed, each once, in their order. Vendors write them in capitals. */
function symbols(typed: string): string[] {
  const found = [...new Set(typed.split(/[\s,;]+/).filter(Boolean))];
  const odd = found.find((symbol) => symbol.length > 64);
  if (odd) throw new Error(`${odd.slice(0, 20)}… is too long to be a symbol.`);
  if (found.length > SYMBOLS_MAX) throw new Error(`${found.length} symbols; a list has ${SYMBOLS_MAX} at most.`);
  return found.map((symbol) => (/[a-z]/.test(symbol) && !/[A-Z]/.test(symbol) ? symbol.toUpperCase() : symbol));
}
