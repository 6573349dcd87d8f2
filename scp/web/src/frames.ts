// One requestAnimationFrame loop for the whole page: painters are called once a frame or in turn, and frames are counted.

export type Painter = (now: number) => void;

export class Frames {
  rendered = 0;
  private readonly painters: Painter[] = [];
  private readonly turns: Painter[] = [];
  private readonly stamps = new Float64Array(1024); // frame times, a ring: 1024 frames are more than 5 s at 144 Hz

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
    const frame = (now: number) => {
      this.stamps[this.rendered++ % this.stamps.length] = now;
      for (const painter of this.painters) painter(now);
      this.turns[this.rendered % this.turns.length]?.(now);
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  /** Frames a second over the last `windowMs`, measured between the first and the last frame in it. */
  fps(windowMs = 5000): number {
    const newest = this.stamps[(this.rendered - 1 + this.stamps.length) % this.stamps.length]!;
    let frames = 0;
    let oldest = newest;
    for (let back = 2; back <= Math.min(this.rendered, this.stamps.length); back++) {
      const stamp = this.stamps[(this.rendered - back) % this.stamps.length]!;
      if (newest - stamp > windowMs) break;
      oldest = stamp;
      frames++;
    }
    return newest > oldest ? (frames * 1000) / (newest - oldest) : 0;
  }
}
