// What the curve and the ribbon draw: gaps where nothing was measured, shares where ticks stand for many rounds.

import assert from "node:assert/strict";
import { test } from "node:test";

import { rectangles, ticks } from "../../static/js/parts/ribbon.js";
import { bestOf, columns, inOrder, isMeasuredOnDevices, medianSeconds, valueOf } from "../../static/js/series.js";

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

  assert.deepEqual(columns(rounds, "accuracy")[1], [0.1, null, null, null]);
});

test("a failed round is a gap, an open one is not there yet", () => {
  const rounds = [line(1), line(2, { state: "failed", version: null, metrics: null, device_metrics: {} }), line(3, { state: "training", version: null })];

  assert.deepEqual(columns(rounds, "accuracy"), [[1, 2], [0.1, null], [0.2, null], [0.4, null]]);
});

test("where the server has no data, the devices' means are drawn", () => {
  const rounds = [line(0, { metrics: null, device_metrics: {} }), line(1, { metrics: null })];

  assert.equal(isMeasuredOnDevices(rounds), true);
  assert.deepEqual(columns(rounds, "accuracy", { onDevices: true })[1], [null, 0.3]);
  assert.equal(valueOf(rounds[1], "accuracy", false), null);
  assert.equal(isMeasuredOnDevices([]), false);
});

test("the spread can be left out", () => {
  assert.deepEqual(columns([line(1)], "accuracy", { spread: false }).slice(2), [[null], [null]]);
});

test("the best value is the first of the best", () => {
  assert.deepEqual(bestOf([[1, 2, 3], [0.5, 0.7, 0.7]], (a, b) => a > b), { value: 0.7, round: 2 });
  assert.equal(bestOf([[1], [null]], (a, b) => a > b), null);
});

test("the median is of what was measured", () => {
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
