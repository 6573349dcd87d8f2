import assert from "node:assert/strict";
import { test } from "node:test";
import { Frames, type Screen } from "../src/frames.ts";

/** A browser whose frames and timers come when the test says so. */
class Twin implements Screen {
  hidden = false;
  private at = 1000;
  private asked: ((now: number) => void)[] = [];
  private beat = () => {};
  request(frame: (now: number) => void): void {
    this.asked.push(frame);
  }
  every(_: number, act: () => void): void {
    this.beat = act;
  }
  now(): number {
    return this.at;
  }
  /** Let frames come until nobody asks for one; return how many came. */
  drawn(most = 1000, gapMs = 16): number {
    for (let n = 0; n < most; n++) {
      const frames = this.asked.splice(0);
      if (frames.length === 0) return n;
      assert.equal(frames.length, 1, "one loop");
      this.at += gapMs;
      frames[0]!(this.at);
    }
    return most;
  }
  beats(ms = 100): void {
    this.at += ms;
    this.beat();
  }
}

function made(rounds = 1) {
  const screen = new Twin();
  const frames = new Frames(() => rounds, screen);
  const painted: string[] = [];
  frames.each(() => painted.push("each"));
  frames.inTurn(() => painted.push("a"), () => painted.push("b"), () => painted.push("c"));
  frames.start();
  screen.drawn();
  painted.length = 0;
  return { screen, frames, painted };
}

test("a change is painted by every turn, then the loop rests", () => {
  const { screen, frames, painted } = made();
  assert.equal(screen.drawn(), 0, "at rest");
  frames.wake();
  frames.wake();
  assert.equal(screen.drawn(), 4);
  assert.deepEqual([...new Set(painted)].sort(), ["a", "b", "c", "each"]);
  assert.equal(screen.drawn(), 0);
});

test("a page of many lists has as many rounds as they need", () => {
  const { screen, frames, painted } = made(3);
  frames.wake();
  assert.equal(screen.drawn(), 10);
  for (const turn of ["a", "b", "c"]) assert.ok(painted.filter((one) => one === turn).length >= 3);
});

test("a change in a frame, or between two, keeps the loop going", () => {
  const { screen, frames, painted } = made();
  let more = 5;
  frames.each(() => void (more-- > 0 && frames.wake()));
  frames.wake();
  assert.equal(screen.drawn(), 9, "the sixth frame is the first one that nothing changed after");
  painted.length = 0;
  frames.wake();
  screen.drawn(3);
  frames.wake();
  assert.equal(screen.drawn(), 4);
});

test("what only time changes is painted without a frame, and not while the page is hidden", () => {
  const { screen, painted } = made(2);
  screen.beats();
  assert.deepEqual(painted, ["each", "a", "b", "c", "a", "b", "c"]);
  assert.equal(screen.drawn(), 0);
  screen.hidden = true;
  screen.beats();
  assert.equal(painted.length, 7);
});

test("the beat waits while the loop runs", () => {
  const { screen, frames, painted } = made();
  frames.wake();
  screen.beats();
  assert.deepEqual(painted, []);
});

test("frames a second leave out the time in which the loop rested", () => {
  const { screen, frames } = made();
  screen.beats(6000);
  for (let n = 0; n < 10; n++) {
    frames.wake();
    screen.drawn(100, 20);
    screen.beats(200);
  }
  assert.equal(Math.round(frames.fps()), 50);
  screen.beats(6000);
  assert.equal(frames.fps(), 0);
});
