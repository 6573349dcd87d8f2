import assert from "node:assert/strict";
import { test } from "node:test";
import { Articles, articleOf, linkOf } from "../src/data/articles.ts";

const article = (id: string, ts: number, more: object = {}) => ({ id, title: id, url: "", source: "", summary: "", tickers: ["A"], more: 0, ts, ...more });

test("the newest stand first, each once, whatever their order", () => {
  const articles = new Articles();
  const added = [["a", 5], ["b", 9], ["a", 5], ["c", 7], ["d", 7]].map(([id, ts]) => articles.add(article(id as string, ts as number)));
  assert.deepEqual(added, [true, true, false, true, true]);
  assert.deepEqual(articles.list.map(({ id }) => id), ["b", "d", "c", "a"]);
});

test("a list has an end, and what is older than all of it stays out", () => {
  const articles = new Articles();
  for (let n = 0; n < 150; n++) articles.add(article(`n${n}`, n));
  assert.equal(articles.list.length, 100);
  assert.equal(articles.list.at(-1)?.id, "n50");
  assert.equal(articles.add(article("old", 1)), false);
});

test("only http and https are links", () => {
  for (const url of ["javascript:alert(1)", "data:text/html,x", "//x", "x", "", 7, null, "JaVaScRiPt:1", " java\nscript:alert(1)"]) assert.equal(linkOf(url), "");
  assert.equal(linkOf("https://x.example/a b"), "https://x.example/a%20b");
});

test("what is no article is passed over, and what is missing is empty", () => {
  for (const raw of [null, 7, "x", {}, { id: 1, title: "t", ts: 1 }, { id: "a", title: "t" }]) assert.equal(articleOf(raw), null);
  assert.deepEqual(articleOf({ id: "a", title: "t", ts: 1, tickers: ["A", 7] }), { id: "a", title: "t", url: "", source: "", summary: "", tickers: ["A"], more: 0, ts: 1 });
});
