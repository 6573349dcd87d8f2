import assert from "node:assert/strict";
import { test } from "node:test";
import { BUILT_IN, contentOf, fileOf, layoutOf, newId } from "../src/layout/document.ts";
import { arranged, closedUp, COLUMNS, free, overlaps, risen, shelved, within, type Box } from "../src/layout/places.ts";

const box = (id: string, x: number, y: number, w: number, h: number): Box => ({ id, x, y, w, h });

/** Dice from a seed (mulberry32): a failure can be played again. */
function dice(seed: number): (n: number) => number {
  return (n) => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % n;
  };
}

function sound(boxes: readonly Box[]): void {
  for (const one of boxes) {
    assert.ok(one.x >= 0 && one.y >= 0 && one.x + one.w <= COLUMNS, JSON.stringify(one));
    for (const other of boxes) assert.ok(!overlaps(one, other), JSON.stringify([one, other]));
  }
}

test("whatever is moved or resized, nothing overlaps, nothing leaves the grid, and nothing could rise", () => {
  for (let seed = 1; seed <= 60; seed++) {
    const roll = dice(seed);
    let boxes: Box[] = [];
    for (let n = 0; n < 12; n++) boxes.push({ id: `w${n}`, ...free(boxes, 1 + roll(20), 0 || 3), w: 1 + roll(20), h: 1 + roll(8) });
    boxes = risen(boxes);
    for (let step = 0; step < 40; step++) {
      const one = boxes[roll(boxes.length)]!;
      boxes = arranged(boxes, { ...one, x: roll(60) - 6, y: roll(40) - 4, w: 1 + roll(50), h: 1 + roll(12) });
      sound(boxes);
      for (const here of boxes) {
        const above = { ...here, y: here.y - 1 };
        assert.ok(here.y === 0 || boxes.some((other) => overlaps(other, above)), `seed ${seed}: ${here.id} floats`);
      }
    }
    assert.equal(boxes.length, 12);
  }
});

test("a widget that is moved onto another takes its place, and the other goes below", () => {
  const found = arranged([box("a", 0, 0, 10, 5), box("b", 0, 5, 10, 5)], box("b", 0, 0, 10, 5));
  assert.deepEqual(found.map(({ id, y }) => [id, y]), [["a", 5], ["b", 0]]);
});

test("a box is made to fit before it is moved inside", () => {
  assert.deepEqual(within(box("a", 45, -3, 99, 0)), box("a", 0, 0, 48, 1));
});

test("what is not shown gives its columns to what stands beside it, and only where nobody else is in the way", () => {
  const boxes = [box("list", 0, 0, 20, 10), box("chart", 20, 0, 18, 6), box("prints", 20, 6, 18, 4), box("depth", 38, 0, 10, 10), box("foot", 0, 10, 48, 4)];
  const shown = closedUp(boxes, new Set(["depth"]));
  assert.deepEqual(shown.map(({ id }) => id), ["list", "chart", "prints", "foot"]);
  const widths = Object.fromEntries(shown.map(({ id, w }) => [id, Math.round(w * 10) / 10]));
  assert.deepEqual(widths, { list: 25.3, chart: 22.7, prints: 22.7, foot: 48 });
  const tall = closedUp([...boxes.slice(0, 4), box("tall", 0, 10, 48, 4)].map((one) => (one.id === "list" ? { ...one, h: 12 } : one)), new Set(["depth"]));
  assert.equal(tall.find(({ id }) => id === "chart")!.w, 18, "the list reaches below: nothing is stretched");
});

test("shelves of a narrow screen are as wide as the screen", () => {
  const boxes = shelved(BUILT_IN.widgets);
  sound(boxes.map((one) => ({ ...one, x: Math.round(one.x), w: Math.floor(one.w) })));
  for (const y of new Set(boxes.map((one) => one.y))) {
    const width = boxes.filter((one) => one.y === y).reduce((sum, { w }) => sum + w, 0);
    assert.ok(Math.abs(width - COLUMNS) < 1e-9);
  }
});

test("a layout comes back from its file as it was", () => {
  const wild = { ...BUILT_IN, name: "<b>Ω</b>", about: "two\nlines", locked: true };
  assert.deepEqual(layoutOf(fileOf(wild)), { ...wild, default: false });
  assert.equal(newId("board", [{ ...BUILT_IN.widgets[0]!, id: "board-2" }]), "board-3");
});

test("a file that is no layout of ours is refused in words", () => {
  const content = (widgets: unknown, format: unknown = 1) => JSON.stringify({ tapeline: "layout", name: "x", content: { format, widgets } });
  const widget = { id: "a", kind: "board", x: 0, y: 0, w: 10, h: 4 };
  const refused: [string, RegExp][] = [
    ["", /not JSON/], ["null", /no layout of Tapeline/], ["[]", /no layout of Tapeline/], ["x".repeat(60_001), /too large/],
    [JSON.stringify({ tapeline: "layout" }), /no content/], [content([], 2), /format 2.*another version/], [content({}), /no list/],
    [content([null]), /Widget 1 .* is no widget/], [content([{ ...widget, id: "<img>" }]), /no id/], [content([{ ...widget, x: 40 }]), /outside/],
    [content([{ ...widget, w: 1e9 }]), /outside/], [content([widget, widget]), /same id/], [content(Array(61).fill(widget)), /61 widgets/],
  ]; // prettier-ignore
  for (const [file, words] of refused) assert.throws(() => layoutOf(file), words, file.slice(0, 80));
});

test("what a file says of names, links and settings is believed only where it has the shape of it", () => {
  const widgets = [{ id: "a", kind: "board", x: 0, y: 3, w: 10, h: 4, link: "javascript:", settings: "none" }, { id: "b", kind: "later", x: 0, y: 4, w: 10, h: 4, link: "green" }];
  const found = contentOf({ format: 1, widgets, symbols: { green: "AAPL", blue: 1, other: "X" } });
  assert.deepEqual(found.widgets.map(({ y, link, settings }) => [y, link, settings]), [[0, "", {}], [4, "green", {}]]);
  assert.deepEqual(found.symbols, { green: "AAPL" });
  assert.deepEqual(layoutOf('{"tapeline":"layout","name":["x"],"about":5,"content":{"format":1,"widgets":[]}}').name, "Imported");
});
