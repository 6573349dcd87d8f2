// Paints the header's pill and numbers from the verdict, the pipeline's report and the page's counters: a few writes a second.

import { byId, Text } from "../dom.ts";
import { age, count, quantity } from "../format.ts";
import type { Freshness } from "../data/freshness.ts";
import type { PipelineReport } from "../data/pipeline.ts";

const WORDS = { live: "Live", partly: "Partly live", waiting: "Waiting", stale: "Stale", closed: "Closed" } as const;

export interface Readings {
  freshness: Freshness;
  pipeline: PipelineReport | null;
  /** Age of the newest market data in ms, NaN while there is none. */
  ageMs: number;
  updatesPerSecond: number;
  fps: number;
  connection: string;
}

export class Meters {
  private readonly pill = byId("feed");
  private readonly word = new Text(this.pill.querySelector("b")!);
  private readonly why = new Text(this.pill.querySelector("span")!);
  private readonly texts = {
    age: new Text(byId("m-age")),
    events: new Text(byId("m-events")),
    lag: new Text(byId("m-lag")),
    lost: new Text(byId("m-lost")),
    updates: new Text(byId("m-updates")),
    fps: new Text(byId("m-fps")),
    connection: new Text(byId("connection")),
  };

  constructor(withFps: boolean) {
    byId("m-fps-box").hidden = !withFps;
  }

  paint(readings: Readings): void {
    const { freshness, pipeline } = readings;
    const root = document.documentElement;
    if (root.dataset["feed"] !== freshness.verdict) root.dataset["feed"] = freshness.verdict;
    if (this.pill.dataset["verdict"] !== freshness.verdict) this.pill.dataset["verdict"] = freshness.verdict;
    this.word.set(WORDS[freshness.verdict]);
    this.why.set(freshness.reason || (pipeline?.feeds ?? ""));
    this.pill.title = freshness.reason;
    this.texts.age.set(age(readings.ageMs));
    this.texts.events.set(quantity(Math.round(pipeline?.eventsPerSecond ?? NaN)));
    this.texts.lag.set(age(pipeline?.lagMs ?? NaN));
    this.texts.lost.set(count(pipeline?.lost ?? NaN));
    this.texts.lost.element.classList.toggle("bad", (pipeline?.lost ?? 0) > 0);
    this.texts.lost.element.title = pipeline?.losses || "nothing was lost";
    this.texts.updates.set(quantity(Math.round(readings.updatesPerSecond)));
    this.texts.fps.set(readings.fps.toFixed(0));
    this.texts.connection.set(readings.connection);
  }
}
