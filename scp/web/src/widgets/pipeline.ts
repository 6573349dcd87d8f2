// How the pipeline is: each source with its state, and what the processors say.

import type { PipelineDocument, PlugIn } from "../data/pipeline.ts";
import { attributes, el, Text } from "../dom.ts";
import { age, count, quantity } from "../format.ts";
import { Listing, type Row } from "../views/listing.ts";
import type { Kind, Place, Widget } from "./widget.ts";

class Pipeline implements Widget {
  readonly element: HTMLElement;
  readonly head: HTMLElement;
  private readonly note = new Text(el("span", "note"));
  private readonly list = new Listing("Sources of the pipeline", ["Source", "State", "Dropped", "Expired", "Why"]);
  private painted: PipelineDocument | null = null;

  constructor(private readonly place: Place) {
    const heading = place.ids.name("h-pipeline", el("h2", "", "Pipeline"));
    this.head = el("div", "head", heading, this.note.element);
    this.element = attributes(el("section", "panel pipeline", this.head, this.list.element), { "aria-labelledby": heading.id });
    this.list.waitFor("Waiting for the pipeline's first report");
    this.list.set([]);
  }

  paint(): void {
    const { pipeline } = this.place.market.shared;
    if (!pipeline || pipeline === this.painted) return;
    this.painted = pipeline;
    const { events_s: events, lag_ms: lag, bad_events: bad, stale_partitions: stale, partitions_expected: all } = pipeline.processors ?? {};
    const parts = [`${quantity(Math.round(events ?? NaN))} events/s`, `lag ${age(lag ?? NaN)}`];
    if (all) parts.push(`${all - (stale?.length ?? 0)} of ${all} partitions read`);
    if (bad) parts.push(`${count(bad)} bad events`);
    this.note.set(parts.join(", "));
    const plugins = Object.entries(pipeline.processors?.plugins ?? {}).map(pluginRow);
    this.list.set([...Object.entries(pipeline.sources ?? {}).map(row), ...plugins]);
  }

  close(): void {}
}

function row([name, source]: [string, NonNullable<PipelineDocument["sources"]>[string]]): Row {
  const dropped = Number(source.listener?.["dropped_events"] ?? NaN) + (source.dropped_events ?? 0);
  const unheard = source.stale_partitions?.length ? `not heard in ${source.stale_partitions.length} partitions` : "";
  const state = source.state ?? "unknown";
  return { texts: [name, state, count(dropped), count(source.expired_events ?? NaN), source.reason || unheard], tone: state === "live" && !unheard ? "up" : "warn" };
}

/** A plug-in: what it missed stands where a source's losses do, for its channels it is the same. */
function pluginRow([name, { state = "unknown", off = [], error = "", missed_events: missed = NaN }]: [string, PlugIn]): Row {
  const where = off.length > 0 ? `not running in ${off.length} partitions` : "";
  const why = state === "running" && !where ? "" : [where, error].filter(Boolean).join(": ");
  return { texts: [`plug-in ${name}`, state, count(missed), "", why], tone: state === "running" && !where ? "up" : "warn" };
}

export const pipeline: Kind = {
  name: "pipeline",
  title: "Pipeline",
  about: "Sources, rates and losses of the pipeline",
  tab: "more",
  turn: 2,
  size: [16, 5],
  least: [10, 4],
  links: false,
  fields: [],
  make: (place) => new Pipeline(place),
};
