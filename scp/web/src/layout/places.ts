// Arranges boxes on a grid of columns and rows. Pure.
// Invariant: boxes never overlap, never leave the grid, and rise as far as they can, so that there are no holes above them.

export const COLUMNS = 48;
export const SCREEN_ROWS = 24; // as many as a screen shows; a layout may be longer
export const ROWS_MAX = 400;

export interface Box {
  readonly id: string;
  readonly x: number;
  readonly y: number;
  readonly w: number;
  readonly h: number;
}

/** The layout after `changed` was put where it says: what is in its way goes down, then everything rises. Keeps the order. */
export function arranged<B extends Box>(boxes: readonly B[], changed: Box): B[] {
  const put = within(changed);
  const placed = new Map<string, B>();
  const others = boxes.filter(({ id }) => id !== changed.id).sort(byPlace);
  const held = boxes.find(({ id }) => id === changed.id);
  const settled: Box[] = [put];
  if (held) placed.set(put.id, { ...held, ...put });
  for (const box of others) {
    let { y } = box;
    for (let hit; (hit = settled.find((other) => overlaps(other, { ...box, y }))); ) y = hit.y + hit.h;
    settled.push({ ...box, y });
    placed.set(box.id, { ...box, y });
  }
  return risen(boxes.map(({ id }) => placed.get(id)!));
}

/** The boxes, each as high as it can rise. */
export function risen<B extends Box>(boxes: readonly B[]): B[] {
  const settled: B[] = [];
  for (const box of boxes.map((one) => ({ ...one, ...within(one) })).sort(byPlace)) {
    let y = box.y;
    while (settled.some((other) => overlaps(other, { ...box, y }))) y++; // a file may say anything
    while (y > 0 && !settled.some((other) => overlaps(other, { ...box, y: y - 1 }))) y--;
    settled.push({ ...box, y });
  }
  const byId = new Map(settled.map((box) => [box.id, box]));
  return boxes.map(({ id }) => byId.get(id)!);
}

/** The first free place for a box of this size, row by row. */
export function free(boxes: readonly Box[], w: number, h: number): { x: number; y: number } {
  const end = Math.max(0, ...boxes.map((box) => box.y + box.h));
  for (let y = 0; y <= end; y++) {
    for (let x = 0; x + w <= COLUMNS; x++) {
      const box = { id: "", x, y, w, h };
      const hit = boxes.find((other) => overlaps(other, box));
      if (!hit) return { x, y };
      x = hit.x + hit.w - 1;
    }
  }
  return { x: 0, y: end };
}

/**
 * Where the boxes stand while those of `absent` are not shown: their columns go to what stands beside them, when these reach
 * neither above nor below them. Columns may then be fractions.
 */
export function closedUp<B extends Box>(boxes: readonly B[], absent: ReadonlySet<string>): B[] {
  let shown = boxes.filter(({ id }) => !absent.has(id));
  for (const gone of boxes.filter(({ id }) => absent.has(id))) {
    const beside = shown.filter((box) => box.y < gone.y + gone.h && gone.y < box.y + box.h);
    const atEdge = gone.x === 0 || gone.x + gone.w === COLUMNS;
    const inside = beside.every((box) => box.y >= gone.y && box.y + box.h <= gone.y + gone.h);
    if (!atEdge || !inside || gone.w === COLUMNS) continue;
    const scale = COLUMNS / (COLUMNS - gone.w);
    const from = gone.x === 0 ? gone.w : 0;
    shown = shown.map((box) => (beside.includes(box) ? { ...box, x: (box.x - from) * scale, w: box.w * scale } : box));
  }
  return shown;
}

/** The boxes for a screen that is too narrow for the layout: shelves, in the order of reading, each as wide as the screen. */
export function shelved<B extends Box>(boxes: readonly B[]): B[] {
  const shelves: B[][] = [];
  for (const box of [...boxes].sort(byPlace)) {
    const w = box.w >= 20 ? COLUMNS : box.w >= 13 ? COLUMNS / 2 : COLUMNS / 3;
    const last = shelves.at(-1);
    const taken = last ? last.reduce((sum, other) => sum + other.w, 0) : COLUMNS;
    if (last && taken + w <= COLUMNS) last.push({ ...box, w });
    else shelves.push([{ ...box, w }]);
  }
  let y = 0;
  const found = new Map<string, B>();
  for (const shelf of shelves) {
    const scale = COLUMNS / shelf.reduce((sum, { w }) => sum + w, 0);
    const h = Math.max(...shelf.map((box) => Math.min(box.h, 16)));
    let x = 0;
    for (const box of shelf) {
      found.set(box.id, { ...box, x, y, w: box.w * scale, h });
      x += box.w * scale;
    }
    y += h;
  }
  return boxes.map(({ id }) => found.get(id)!);
}

/** The box inside the grid: first made small enough, then moved. */
export function within<B extends Box>(box: B): B {
  const w = clamp(box.w, 1, COLUMNS);
  const h = clamp(box.h, 1, ROWS_MAX);
  return { ...box, w, h, x: clamp(box.x, 0, COLUMNS - w), y: clamp(box.y, 0, ROWS_MAX) };
}

export function overlaps(a: Box, b: Box): boolean {
  return a.id !== b.id && a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;
}

function byPlace(a: Box, b: Box): number {
  return a.y - b.y || a.x - b.x;
}

function clamp(value: number, least: number, most: number): number {
  return Math.min(Math.max(Math.round(value), least), most);
}
