// One requestAnimationFrame loop for the whole page: painters are called once a frame or in turn, and frames are counted.
// Invariant: the loop rests when nothing has changed for a round of all turns, and a change wakes it at once. What only time
// changes (an age, a state that runs out) is painted by a slow beat meanwhile, which asks the browser for no frame.

export type Painter = (now: number) => void;

/** What the loop needs of a browser; tests turn the clock by hand. */
export interface Screen {
  request(frame: (now: number) => void): void;
  every(ms: number, act: () => void): void;
  now(): number;
  readonly hidden: boolean;
}

const BEAT_MS = 100; // a flash that nothing follows lasts so much longer at most
const HANDS = [
  "pointerdown", "pointermove", "pointerup", "click", "touchmove", "wheel", "scroll", "keydown", "keyup", "input", "change", "resize",
  "hashchange", "visibilitychange",
]; // prettier-ignore
const KEPT = 1024; // frame times, a ring: 1024 frames are more than 5 s at 144 Hz

const BROWSER: Screen = {
  request: (frame) => void requestAnimationFrame(frame),
  every: (ms, act) => void setInterval(act, ms),
  now: () => performance.now(),
  get hidden() { return document.hidden; },
}; // prettier-ignore

export class Frames {
  rendered = 0;
  private readonly painters: Painter[] = [];
  private readonly turns: Painter[] = [];
  private readonly stamps = new Float64Array(KEPT);
  private readonly gaps = new Float64Array(KEPT); // since the frame before; 0 = the loop rested in between
  private changed = false; // since the frame before
  private left = 0; // frames until the loop rests
  private runs = false; // a frame is asked for

  constructor(
    /** How many rounds of all turns it takes until everything is painted. */
    private readonly rounds: () => number = () => 1,
    private readonly screen: Screen = BROWSER,
  ) {}

  /** Add a painter; it decides itself whether there is something to do. */
  each(painter: Painter): void {
    this.painters.push(painter);
  }

  /**
   * Add painters of which one is called a frame, in turn: what came together is not styled, laid out and painted together.
   * A thousand changes in one message fit into three frames where they did not fit into one.
   */
  inTurn(...painters: Painter[]): void {
    this.turns.push(...painters);
  }

  start(): void {
    this.screen.every(BEAT_MS, () => this.beat());
    this.wake();
  }

  /** Something has changed: the next frames paint it. Called for each change, so it costs next to nothing while the loop runs. */
  wake(): void {
    this.changed = true;
    if (this.runs) return;
    this.runs = true;
    this.screen.request((now) => this.frame(now, 0));
  }

  /** Frames a second over the last `windowMs`, of the stretches in which the loop ran; 0 when it rested all the time. */
  fps(windowMs = 5000): number {
    const since = this.screen.now() - windowMs;
    let [frames, tookMs] = [0, 0];
    for (let back = 1; back <= Math.min(this.rendered, KEPT); back++) {
      const at = (this.rendered - back) % KEPT;
      if (this.stamps[at]! < since) break;
      if (this.gaps[at]! > 0) frames++;
      tookMs += this.gaps[at]!;
    }
    return tookMs > 0 ? (frames * 1000) / tookMs : 0;
  }

  private frame(now: number, gapMs: number): void {
    this.stamps[this.rendered % KEPT] = now;
    this.gaps[this.rendered++ % KEPT] = gapMs;
    this.left = this.changed ? this.rounds() * this.turns.length : this.left - 1; // one more: a new order is bound by the frame after
    this.changed = false;
    for (const painter of this.painters) painter(now);
    this.turns[this.rendered % this.turns.length]?.(now);
    this.runs = this.changed || this.left > 0;
    if (this.runs) this.screen.request((next) => this.frame(next, next - now));
  }

  private beat(): void {
    if (this.runs || this.screen.hidden) return;
    const now = this.screen.now();
    for (const painter of this.painters) painter(now);
    for (let round = this.rounds(); round > 0; round--) for (const paint of this.turns) paint(now);
  }
}

/** Call `act` whenever a hand does something on the page, before the page answers it. */
export function onHand(act: () => void): void {
  const told = (event: Event) => (event.type !== "pointermove" || (event as PointerEvent).buttons) && act();
  for (const name of HANDS) addEventListener(name, told, { capture: true, passive: true });
}
