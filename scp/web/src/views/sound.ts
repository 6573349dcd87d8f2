// Plays a short tone, high or low, and knows when the browser does not let it: until somebody has clicked on the page.

const APART_MS = 400; // alerts come in bursts
const TONE_S = 0.12;
const [HIGH_HZ, LOW_HZ] = [880, 440];

export class Sound {
  private context: AudioContext | null = null;
  private playedAt = -Infinity;

  constructor(public on: boolean) {}

  /** `blocked`: it is on, and the browser waits for a click. */
  get state(): "off" | "on" | "blocked" {
    if (!this.on) return "off";
    return this.context && this.context.state !== "running" ? "blocked" : "on";
  }

  /** Somebody clicked: what was blocked may play now, else it is switched. */
  press(): void {
    if (this.state === "blocked") void this.context!.resume();
    else this.on = !this.on;
    if (this.on) this.play(true, performance.now());
  }

  play(high: boolean, now: number): void {
    if (!this.on || now - this.playedAt < APART_MS) return;
    this.playedAt = now;
    this.context ??= new AudioContext();
    if (this.context.state !== "running") {
      void this.context.resume();
      return;
    }
    const { context } = this;
    const at = context.currentTime;
    const loudness = context.createGain();
    loudness.gain.setValueAtTime(0.08, at);
    loudness.gain.exponentialRampToValueAtTime(0.001, at + TONE_S);
    loudness.connect(context.destination);
    const tone = context.createOscillator();
    tone.frequency.value = high ? HIGH_HZ : LOW_HZ;
    tone.connect(loudness);
    tone.start(at);
    tone.stop(at + TONE_S);
  }

  close(): void {
    void this.context?.close();
  }
}
