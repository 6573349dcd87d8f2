import assert from "node:assert/strict";
import { test } from "node:test";
import { age, amount, clock, count, decimalsOf, NONE, percent, price, priceDecimals, quantity, signed } from "../src/format.ts";

test("a price needs as many decimals as its digits say, and float noise does not count", () => {
  const cases: [number, number][] = [
    [4783.25, 2], [100, 0], [0.00001302, 8], [1.08345, 5], [0.1 + 0.2, 1], [61234.5, 1], [1e-12, 10], [0, 0], [NaN, 0], [-0.5, 1],
  ]; // prettier-ignore
  for (const [x, wanted] of cases) assert.equal(decimalsOf(x), wanted, String(x));
  assert.equal(priceDecimals(0), 2);
  assert.equal(priceDecimals(8), 8);
});

test("prices keep their decimals and get separators; unknown is a dash, not zero", () => {
  assert.equal(price(1234.5, 2), "1,234.50");
  assert.equal(price(0.00001302, 8), "0.00001302");
  assert.equal(price(-1234567.891, 3), "-1,234,567.891");
  assert.equal(price(NaN, 2), NONE);
  assert.equal(price(999, 0), "999");
});

test("changes carry their sign", () => {
  assert.equal(signed(0.25, 2), "+0.25");
  assert.equal(signed(-1234.5, 2), "−1,234.50");
  assert.equal(signed(0, 2), "0.00");
  assert.equal(percent(1.2345), "+1.23%");
  assert.equal(percent(-2500), "−2,500%");
  assert.equal(percent(NaN), NONE);
});

test("quantities fit into six characters, whatever they are", () => {
  const cases: [number, string][] = [
    [0, "0"], [950, "950"], [9999, "9,999"], [12345, "12.3K"], [1234567, "1.23M"], [98765432109, "98.8B"], [5e12, "5.00T"],
    [0.01234, "0.0123"], [1.5, "1.50"], [NaN, NONE], [123456, "123K"], [9539.4, "9,539"],
  ]; // prettier-ignore
  for (const [x, wanted] of cases) {
    assert.equal(quantity(x), wanted);
    assert.ok(wanted.length <= 6);
  }
  assert.equal(count(1234567), "1,234,567");
});

test("sizes have the decimals of their lots, as long as these fit", () => {
  const cases: [number, number, string][] = [
    [0.012, 3, "0.012"], [0.5, 3, "0.500"], [12, 3, "12.000"], [1234.5, 1, "1,234.5"], [11_800, 0, "11,800"], [9_999_999, 0, "9,999,999"],
    [12_345_678, 0, "12.3M"], [123_456.789, 3, "123K"], [0.01616617, 8, "0.0162"], [NaN, 3, NONE],
  ]; // prettier-ignore
  for (const [x, decimals, wanted] of cases) assert.equal(amount(x, decimals), wanted);
});

test("an age is said in the unit that fits it", () => {
  const cases: [number, string][] = [
    [-20, "0 ms"], [42.4, "42 ms"], [3100, "3.1 s"], [61_000, "61 s"], [600_000, "10 min"], [9e6, "3 h"], [NaN, NONE],
  ]; // prettier-ignore
  for (const [ms, wanted] of cases) assert.equal(age(ms), wanted);
});

test("the time of day is local and two digits each", () => {
  assert.equal(clock(new Date(2026, 10, 20, 9, 5, 7).getTime()), "09:05:07");
  assert.equal(clock(0), NONE);
});
