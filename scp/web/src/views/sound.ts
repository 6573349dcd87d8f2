// Plays short tones, and knows when the browser does not let it: until somebody has clicked on the page.

const APART_MS = 400; // alerts come in bursts; each kind by itself, so that highs do not drown a halt
const TONE_S = 0.12;

/** Frequencies (Hz), played one after the other. */
export type Tone = readonly number[];

export class Sound {
  private context: AudioContext | null = null;
  private readonly playedAt = new Map<string, number>();

  constructor(public on: boolean) {}

  /** `blocked`: it is on, and the browser waits for a click. */
  get state(): "off" | "on" | "blocked" {
    if (!this.on) return "off";
    return this.context && this.context.state !== "running" ? "blocked" : "on";
  }

  /** Somebody clicked: what was blocked may play now, else it is switched; `sample` is what is heard of it. */
  press(sample: Tone): void {
    if (this.state === "blocked") void this.context!.resume();
    else this.on = !this.on;
    if (this.on) this.play("", sample, performance.now());
  }

  /** Play the tone of a kind, unless it was played just now. */
  play(kind: string, tone: Tone, now: number): void {
    if (!this.on || now - (this.playedAt.get(kind) ?? -Infinity) < APART_MS) return;
    this.playedAt.set(kind, now);
    this.context ??= new AudioContext();
    if (this.context.state !== "running") {
      void this.context.resume();
      return;
    }
    const { context } = this;
    tone.forEach((hz, n) => beep(context, hz, context.currentTime + n * TONE_S));
  }

  close(): void {
    void this.context?.close();
  }
}

function beep(context: AudioContext, hz: number, at: number): void {
  const loudness = context.createGain();
  loudness.gain.setValueAtTime(0.08, at);
  loudness.gain.exponentialRampToValueAtTime(0.001, at + TONE_S);
  loudness.connect(context.destination);
  const tone = context.createOscillator();
  tone.frequency.value = hz;
  tone.connect(loudness);
  tone.start(at);
  tone.stop(at + TONE_S);
}
