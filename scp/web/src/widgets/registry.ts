// Lists the kinds of widgets; a new one is a file of its own and a word here.

import { may } from "../data/rights.ts";
import { activity } from "./activity.ts";
import { alerts } from "./alerts.ts";
import { board } from "./board.ts";
import { candles } from "./candles.ts";
import { companyCard } from "./company.ts";
import { depth } from "./depth.ts";
import { figures } from "./figures.ts";
import { halts } from "./halts.ts";
import { news } from "./news.ts";
import { orders } from "./orders.ts";
import { pipeline } from "./pipeline.ts";
import { prints } from "./prints.ts";
import { quote } from "./quote.ts";
import { watchlist } from "./watchlist.ts";
import type { Kind } from "./widget.ts";

export const KINDS: readonly Kind[] = [watchlist, quote, candles, depth, prints, board, activity, figures, companyCard, alerts, news, halts, orders, pipeline];

/** The kinds that whoever is signed in may place. */
export function offered(): readonly Kind[] {
  return KINDS.filter(({ needs }) => !needs || may(needs));
}

/** The kind of this name; undefined for one that this page does not know. */
export function kindOf(name: string): Kind | undefined {
  return KINDS.find((kind) => kind.name === name);
}
