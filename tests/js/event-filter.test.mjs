// Which of the events that come a list is about.

import assert from "node:assert/strict";
import { test } from "node:test";

import { matches, readFilter } from "../../static/js/event-filter.js";

const WORDS = {
  keys: { error_notification: ["severity"], training_progress: ["phase"] },
  lines: {
    "error_notification.error": { title: "{title}", detail: [], tone: "bad", icon: "x" },
    "error_notification.warning": { title: "{title}", detail: [], tone: "warn", icon: "x" },
    "training_progress.accepted": { title: "{device_name} sent its update", detail: [], tone: "good", icon: "check" },
  },
};
const NOTHING = { severity: "", kind: "", run: "", device: "", text: "", raw: "", from: "", to: "" };
const told = (filter, frame) => matches(readFilter({ ...NOTHING, ...filter }), frame, WORDS);

const error = (severity, data = {}) => ({
  event: "error_notification",
  stream: "system",
  seq: 1,
  timestamp: "2030-01-01T12:00:00Z",
  data: { severity, title: "Round 3 failed", run_id: 4, device_id: null, ...data },
});
const untold = { event: "training_progress", stream: "system", seq: 2, timestamp: "2030-01-01T12:00:00Z", data: { phase: "training", device_id: 7 } };
const tick = { event: "training_progress", key: "round:1", number: 1, timestamp: "2030-01-01T12:00:00Z", data: { phase: "accepted", device_name: "clinic" } };

test("without a filter all is news that is told, and nothing else", () => {
  assert.ok(told({}, error("warning")));
  assert.ok(!told({}, untold));
  assert.ok(!told({ raw: "1" }, tick));
});

test("raw means also what is not told, unless a severity is asked for", () => {
  assert.ok(told({ raw: "1" }, untold));
  assert.ok(!told({ raw: "1", severity: "warnings" }, untold));
});

test("errors are warnings too", () => {
  assert.deepEqual(["warning", "error"].map((severity) => told({ severity: "warnings" }, error(severity))), [true, true]);
  assert.deepEqual(["warning", "error"].map((severity) => told({ severity: "errors" }, error(severity))), [false, true]);
});

test("a run's events are those of its stream and those that name it; likewise a device's", () => {
  assert.ok(told({ run: "4" }, error("error")));
  assert.ok(told({ run: "4" }, { ...error("error", { run_id: null }), stream: "run:4" }));
  assert.ok(!told({ run: "5" }, error("error")));
  assert.ok(told({ device: "7", raw: "1" }, untold));
  assert.ok(!told({ device: "7" }, error("error")));
});

test("a text is looked for in upper and lower case, and a kind by its name", () => {
  assert.ok(told({ text: "ROUND 3" }, error("error")));
  assert.ok(!told({ text: "round 4" }, error("error")));
  assert.ok(told({ kind: "error_notification" }, error("error")));
  assert.ok(!told({ kind: "broadcast" }, error("error")));
});

test("a time has its first moment in it, and its last not", () => {
  const from = (moment) => told({ from: `2030-01-01T${moment}+00:00` }, error("error"));
  const to = (moment) => told({ to: `2030-01-01T${moment}+00:00` }, error("error"));

  assert.deepEqual([from("11:59:59"), from("12:00:00"), from("12:00:01")], [true, true, false]);
  assert.deepEqual([to("12:00:00"), to("12:00:01")], [false, true]);
});
