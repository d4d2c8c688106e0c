// Comparing runs: points of an event, columns over one axis, and what stands for a model.

import assert from "node:assert/strict";
import { test } from "node:test";

import { addPoint, align, headlineOf, indexAt, measuredOf } from "../../static/js/compared.js";
import { withTicks } from "../../static/js/parts/runs.js";
import { outlookOf } from "../../static/js/parts/new-run.js";

const curve = (changes = {}) => ({
  run_id: 1,
  started_at: "2030-01-01T12:00:00Z",
  on_devices: false,
  first: [...(changes.rounds ?? [0, 1])],
  rounds: [0, 1],
  seconds: [0, 5],
  accuracy: [0.1, 0.5],
  loss: [2, 1],
  low: { accuracy: [], loss: [] },
  high: { accuracy: [], loss: [] },
  best: { accuracy: null, loss: null },
  last: { accuracy: null, loss: null },
  ...changes,
});
/** Rounds 0 to 9 in two columns, then 10 and 11. */
const longCurve = () =>
  curve({
    first: [0, 5, 10, 11],
    rounds: [4, 9, 10, 11],
    seconds: [40, 90, 100, 110],
    accuracy: [0.2, 0.4, 0.5, 0.6],
    loss: [2, 1, 0.9, 0.8],
    low: { accuracy: [0.1, 0.3], loss: [1.5, 0.9] },
    high: { accuracy: [0.3, 0.5], loss: [3, 1.5] },
  });
const point = (round, seconds, accuracy, loss = null) => ({ round, timestamp: new Date(Date.UTC(2030, 0, 1, 12, 0, seconds)).toISOString(), accuracy, loss });

test("a new point goes to its round's place, with the time since the run began", () => {
  const known = curve({ rounds: [0, 1, 3], seconds: [0, 5, 15], accuracy: [0.1, 0.5, 0.7], loss: [2, 1, 0.5] });

  addPoint(known, point(4, 20, 0.8, 0.4));
  addPoint(known, point(2, 10, null));

  assert.deepEqual([known.rounds, known.first], [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]);
  assert.deepEqual(known.seconds, [0, 5, 10, 15, 20]);
  assert.deepEqual(known.accuracy, [0.1, 0.5, null, 0.7, 0.8]);
  assert.deepEqual(known.loss, [2, 1, null, 0.5, 0.4]);
});

test("a point that is told again is there once", () => {
  const known = curve();

  addPoint(known, point(1, 6, 0.6, 0.9));

  assert.deepEqual([known.rounds, known.seconds, known.accuracy], [[0, 1], [0, 6], [0.1, 0.6]]);
});

test("a round that is one of several in a column counts already, and a new one stands alone", () => {
  const known = longCurve();

  addPoint(known, point(7, 70, 0.9));
  addPoint(known, point(9, 90, 0.9));
  addPoint(known, point(12, 120, 0.7));

  assert.deepEqual([known.first, known.rounds], [[0, 5, 10, 11, 12], [4, 9, 10, 11, 12]]);
  assert.deepEqual(known.accuracy, [0.2, 0.4, 0.5, 0.6, 0.7]);
});

test("the first point of a run whose start is not known begins its time", () => {
  const known = curve({ started_at: null, rounds: [], seconds: [], accuracy: [], loss: [] });

  addPoint(known, point(0, 7, 0.1));

  assert.deepEqual(known.seconds, [0]);
});

test("curves share one axis: undefined where a run has no point, null where it measured nothing", () => {
  const other = curve({ run_id: 2, rounds: [0, 2, 3], seconds: [0, 4, 5], accuracy: [0.2, null, 0.9] });

  assert.deepEqual(align([curve(), other], "accuracy", "round"), [
    [0, 1, 2, 3],
    [0.1, 0.5, undefined, undefined],
    [0.2, undefined, null, 0.9],
  ]);
  assert.deepEqual(align([curve(), other], "accuracy", "time"), [
    [0, 4, 5],
    [0.1, undefined, 0.5],
    [0.2, null, 0.9],
  ]);
});

test("what a run had at a moment is its own last point before it", () => {
  assert.equal(indexAt(curve(), "time", 4.9), 0);
  assert.equal(indexAt(curve(), "time", 5), 1);
  assert.equal(indexAt(curve({ seconds: [3, 5] }), "time", 2), -1);
});

test("where rounds share columns, their least and greatest come too, and nothing where they stand alone", () => {
  const [xs, short, long, low, high] = align([curve({ rounds: [4, 11], seconds: [1, 2] }), longCurve()], "accuracy", "round", [longCurve()]);

  assert.deepEqual(xs, [4, 9, 10, 11]);
  assert.deepEqual(short, [0.1, undefined, undefined, 0.5]);
  assert.deepEqual(long, [0.2, 0.4, 0.5, 0.6]);
  assert.deepEqual([low, high], [[0.1, 0.3, undefined, undefined], [0.3, 0.5, undefined, undefined]]);
});

test("a round is found in the column that it is of", () => {
  assert.deepEqual([0, 4, 5, 10, 11, 12].map((round) => indexAt(longCurve(), "round", round)), [0, 0, 1, 2, 3, -1]);
  assert.equal(indexAt(curve({ rounds: [1, 3] }), "round", 2), -1);
});

test("best is the first of the best, last the newest that was measured", () => {
  const known = curve({ rounds: [], seconds: [], accuracy: [], loss: [] });

  for (const [round, accuracy, loss] of [[0, 0.1, null], [1, 0.9, 2], [2, 0.9, 1], [3, null, 3]]) addPoint(known, point(round, round, accuracy, loss));

  assert.deepEqual([known.best.accuracy, known.last.accuracy], [{ value: 0.9, round: 1 }, { value: 0.9, round: 2 }]);
  assert.deepEqual([known.best.loss, known.last.loss], [{ value: 1, round: 2 }, { value: 3, round: 3 }]);
});

test("best and last of a run of which nothing was measured are none, and a late point does not become the last", () => {
  const known = curve({ best: { accuracy: { value: 0.5, round: 1 }, loss: null }, last: { accuracy: { value: 0.5, round: 1 }, loss: null } });

  addPoint(known, point(2, 10, null));
  addPoint(known, point(0, 0, 0.5));

  assert.deepEqual([known.best.loss, known.last.loss], [null, null]);
  assert.deepEqual([known.best.accuracy.round, known.last.accuracy.round], [0, 1]);
});

test("a model stands by its accuracy, else its loss, on the server or on the devices", () => {
  const spread = { mean: 0.25, p10: 0.1, p90: 0.5 };

  assert.deepEqual(headlineOf({ metrics: { loss: 1, accuracy: 0.5 }, device_metrics: {} }), { name: "accuracy", value: 0.5, on_devices: false });
  assert.deepEqual(headlineOf({ metrics: { loss: 1, accuracy: null }, device_metrics: { accuracy: spread } }), { name: "loss", value: 1, on_devices: false });
  assert.deepEqual(headlineOf({ metrics: null, device_metrics: { loss: spread } }), { name: "loss", value: 0.25, on_devices: true });
  assert.equal(headlineOf({ metrics: null, device_metrics: {} }), null);
  assert.equal(measuredOf({ metrics: {}, device_metrics: { loss: spread } }, "loss"), null);
});

test("ticked runs stand in the address, and nothing else of it changes", () => {
  assert.equal(withTicks("http://host/runs/?sort=name&run=9", ["4", "7"]), "http://host/runs/?sort=name&run=4&run=7");
  assert.equal(withTicks("http://host/runs/?run=9", []), "http://host/runs/");
});

test("the outlook of a round follows quorum and cohort", () => {
  assert.deepEqual([0, 1, 2, 3, 4].map((qualified) => outlookOf(qualified, 2, 3)), ["wait", "wait", "smaller", "whole", "whole"]);
});
