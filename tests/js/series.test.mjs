// What the curve and the ribbon draw: gaps where nothing was measured, shares where ticks stand for many rounds.

import assert from "node:assert/strict";
import { test } from "node:test";

import { linesOf, paths, rectangles, ticks } from "../../static/js/parts/ribbon.js";
import { bestOf, columns, inOrder, isMeasuredOnDevices, joined, medianSeconds, smooth, valueOf } from "../../static/js/series.js";

const line = (number, changes = {}) => ({
  number,
  state: "completed",
  selected: 4,
  updates_received: 4,
  version: number,
  metrics: { accuracy: number / 10 },
  device_metrics: { accuracy: { mean: 0.3, p10: 0.2, p90: 0.4 } },
  duration_seconds: number,
  ...changes,
});

test("null and not a number are gaps, never zeros", () => {
  const rounds = [line(1), line(2, { metrics: { accuracy: null } }), line(3, { metrics: { accuracy: NaN } }), line(4, { metrics: {} })];

  const { mean, notFinite } = columns(rounds, "accuracy");

  assert.deepEqual(mean, [0.1, null, null, null]);
  assert.deepEqual(notFinite, [2, 3]);
});

test("a failed round is a gap, an open one is not there yet", () => {
  const rounds = [line(1), line(2, { state: "failed", version: null, metrics: null, device_metrics: {} }), line(3, { state: "training", version: null })];

  const { last, mean, low, high } = columns(rounds, "accuracy");

  assert.deepEqual([last, mean, low, high], [[1, 2], [0.1, null], [0.2, null], [0.4, null]]);
});

test("where the server has no data, the devices' means are drawn", () => {
  const rounds = [line(0, { metrics: null, device_metrics: {} }), line(1, { metrics: null })];

  assert.equal(isMeasuredOnDevices(rounds), true);
  assert.deepEqual(columns(rounds, "accuracy", { onDevices: true }).mean, [null, 0.3]);
  assert.equal(valueOf(rounds[1], "accuracy", false), null);
  assert.equal(isMeasuredOnDevices([]), false);
});

test("the rounds of a very long run that are not told one by one stand before the others, with their extremes", () => {
  const earlier = {
    first: [1, 3],
    last: [2, 3],
    seconds: [2, 3],
    metrics: { accuracy: { min: [0.1, 0.3], mean: [0.15, 0.3], max: [0.2, 0.3], p10: [0, 0.25], p90: [1, 0.35], not_finite: [] } },
    selected: [8, 4],
    updates_received: [6, 4],
    failed: [1, 0],
  };

  const { last, mean, low, high } = columns([line(4)], "accuracy", { earlier });

  assert.deepEqual(last, [2, 3, 4]);
  assert.deepEqual(mean, [0.15, 0.3, 0.4]);
  assert.deepEqual(low, [0.1, 0.25, 0.2]);
  assert.deepEqual(high, [0.2, 0.35, 0.4]);
  assert.deepEqual(ticks([...linesOf(earlier), line(4)], 4, 2), [
    { from: 1, to: 2, kind: "complete", missed: 0.25, failed: 0.5 },
    { from: 3, to: 4, kind: "complete", missed: 0, failed: 0 },
  ]);
});

test("time is counted from the start of the run, and unknown is a gap", () => {
  const rounds = [line(0), line(1, { ended_at: "2030-01-01T12:00:05Z" }), line(2, { ended_at: null })];

  assert.deepEqual(columns(rounds, "accuracy", { startedAt: "2030-01-01T12:00:00Z" }).seconds, [0, 5, null]);
});

test("smoothing begins at the first value, follows slowly, and leaves gaps", () => {
  const smoothed = smooth([1, null, 0, 0], 0.5);

  assert.equal(smoothed[0], 1);
  assert.equal(smoothed[1], null);
  assert.ok(smoothed[2] > smoothed[3] && smoothed[3] > 0);
  assert.deepEqual(smooth([1, 0], 0), [1, 0]);
});

test("two curves stand on one axis: a line is drawn through the other's places, gaps stay gaps", () => {
  const [x, own, other] = joined([1, 2, 3], [[0.1, null, 0.3]], [2, 4], [0.5, 0.6]);

  assert.deepEqual(x, [1, 2, 3, 4]);
  assert.deepEqual(own, [0.1, null, 0.3, undefined]);
  assert.deepEqual(other, [undefined, 0.5, undefined, 0.6]);
});

test("the best value is the first of the best", () => {
  assert.deepEqual(bestOf([1, 2, 3], [0.5, 0.7, 0.7], (a, b) => a > b), { value: 0.7, round: 2 });
  assert.equal(bestOf([1], [null], (a, b) => a > b), null);
});

test("the median is of what was measured in completed rounds", () => {
  assert.equal(medianSeconds([line(20), line(600, { state: "failed" }), line(600, { state: "stopped" })]), 20);
  assert.equal(medianSeconds([line(1), line(9), line(2, { duration_seconds: null })]), 5);
  assert.equal(medianSeconds([]), null);
});

test("rounds stand in the order of their numbers, whenever they came", () => {
  assert.deepEqual(inOrder(new Map([[2, line(2)], [0, line(0)], [1, line(1)]])).map((each) => each.number), [0, 1, 2]);
});

test("each round is a tick, and those to come are planned", () => {
  const found = ticks([line(1), line(2, { state: "training" })], 4);

  assert.deepEqual(found.map((tick) => tick.kind), ["complete", "running", "planned", "planned"]);
});

test("a tick for many rounds shows shares, not the worst case", () => {
  const rounds = Array.from({ length: 1000 }, (_, index) => line(index + 1, index % 10 === 0 ? { updates_received: 3 } : {}));

  const found = ticks(rounds, 1000, 100);

  assert.equal(found.length, 100);
  assert.ok(found.every((tick) => tick.kind === "complete" && Math.abs(tick.missed - 1 / 40) < 1e-9));
});

test("a missed update is seen however small its share, and a tick is never taller than its place", () => {
  for (const missed of [0, 0.01, 0.5, 1]) {
    const parts = rectangles({ kind: "complete", missed, failed: 0 });

    assert.equal(parts.some(([kind]) => kind === "missed"), missed > 0);
    assert.equal(parts.reduce((sum, [, , height]) => sum + height, 0), 20);
  }
});

test("ticks of one kind are one path, each at its place, and none leaves its width", () => {
  const found = ticks([line(1), line(2, { updates_received: 1 }), line(3, { state: "failed" })], 4);

  const drawn = paths(found, 40);

  assert.deepEqual([...drawn.keys()].sort(), ["complete", "failed", "missed", "planned"]);
  const starts = (kind) => [...drawn.get(kind).matchAll(/M([\d.]+) /g)].map(([, x]) => Math.floor(Number(x) / 10));
  assert.deepEqual([starts("complete"), starts("missed"), starts("failed"), starts("planned")], [[0, 1], [1], [2], [3]]);
  assert.ok([...drawn.values()].every((path) => !/NaN|Infinity/.test(path)));
});
