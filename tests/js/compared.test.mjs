// Comparing runs: points of an event, columns over one axis, and what stands for a model.

import assert from "node:assert/strict";
import { test } from "node:test";

import { addPoint, align, endsOf, headlineOf, indexAt, measuredOf } from "../../static/js/compared.js";
import { withTicks } from "../../static/js/parts/runs.js";
import { outlookOf } from "../../static/js/parts/new-run.js";

const curve = (changes = {}) => ({
  run_id: 1,
  started_at: "2030-01-01T12:00:00Z",
  on_devices: false,
  rounds: [0, 1],
  seconds: [0, 5],
  accuracy: [0.1, 0.5],
  loss: [2, 1],
  ...changes,
});
const point = (round, seconds, accuracy, loss = null) => ({ round, timestamp: new Date(Date.UTC(2030, 0, 1, 12, 0, seconds)).toISOString(), accuracy, loss });

test("a new point goes to its round's place, with the time since the run began", () => {
  const known = curve({ rounds: [0, 1, 3], seconds: [0, 5, 15], accuracy: [0.1, 0.5, 0.7], loss: [2, 1, 0.5] });

  addPoint(known, point(4, 20, 0.8, 0.4));
  addPoint(known, point(2, 10, null));

  assert.deepEqual(known.rounds, [0, 1, 2, 3, 4]);
  assert.deepEqual(known.seconds, [0, 5, 10, 15, 20]);
  assert.deepEqual(known.accuracy, [0.1, 0.5, null, 0.7, 0.8]);
  assert.deepEqual(known.loss, [2, 1, null, 0.5, 0.4]);
});

test("a point that is told again is there once", () => {
  const known = curve();

  addPoint(known, point(1, 6, 0.6, 0.9));

  assert.deepEqual([known.rounds, known.seconds, known.accuracy], [[0, 1], [0, 6], [0.1, 0.6]]);
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

test("best is the first of the best, last the newest that was measured", () => {
  const known = curve({ rounds: [0, 1, 2, 3], seconds: [0, 1, 2, 3], accuracy: [0.1, 0.9, 0.9, null], loss: [null, 2, 1, 3] });

  assert.deepEqual(endsOf(known, "accuracy"), { best: { value: 0.9, round: 1 }, last: { value: 0.9, round: 2 } });
  assert.deepEqual(endsOf(known, "loss"), { best: { value: 1, round: 2 }, last: { value: 3, round: 3 } });
  assert.deepEqual(endsOf(curve({ loss: [null, null] }), "loss"), { best: null, last: null });
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
