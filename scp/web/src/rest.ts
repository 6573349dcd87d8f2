// Calls an action when the hand rests: at once after a pause, else as soon as nothing has changed for REST_MS.

export const REST_MS = 80; // a held key repeats every 33 ms; what comes after a rest must be asked for within 100
const PAUSE_MS = 250;

export class Rest {
  private timer: ReturnType<typeof setTimeout> | undefined;
  private touchedAt = -Infinity;

  constructor(private readonly act: () => void) {}

  /** Something has changed by hand. */
  touch(): void {
    const now = performance.now();
    const paused = now - this.touchedAt > PAUSE_MS;
    this.touchedAt = now;
    clearTimeout(this.timer);
    if (paused) this.act();
    else this.timer = setTimeout(() => this.act(), REST_MS);
  }
}
