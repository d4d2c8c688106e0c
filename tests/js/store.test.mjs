// The store: states as the server tells them, ticks that come late, and a feed that tells each thing once.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Store } from "../../static/js/store.js";

const WORDS = {
  keys: { fl_status_update: ["state", "round_state"], training_progress: ["phase"], device_status: ["state", "presence"] },
  lines: {
    "device_status.active.online": { title: "{name} is online", detail: [], tone: "good", icon: "cpu" },
    "device_status.active.offline": { title: "{name} is offline", detail: [], tone: "off", icon: "wifi-off" },
    "fl_status_update.running.training": { title: "Round {round} started", detail: ["{selected:int} devices"], tone: "plain", icon: "play" },
    "fl_status_update.running.aggregating": null,
    "training_progress.accepted": { title: "{device_name} sent its update", detail: [], tone: "good", icon: "check" },
  },
};

const status = (changes = {}) => ({
  run_id: 1,
  run_name: "a run",
  state: "running",
  reason: "",
  rounds: 5,
  round: 1,
  round_state: "training",
  selected: 2,
  updates_received: 0,
  updates_lost: 0,
  actions: ["pause"],
  ...changes,
});

const progress = (changes = {}) => ({
  run_id: 1,
  round: 1,
  phase: "training",
  assignment_id: 7,
  device_id: 3,
  device_name: "clinic",
  progress: 0.5,
  local_epoch: 1,
  local_epochs: 2,
  loss: null,
  metrics: {},
  ...changes,
});

const storeOf = (changes = {}) =>
  new Store({ page: "run", run_id: 1, runs: [status()], rounds: [], progress: [], devices: [], told: [], now: null, ...changes }, WORDS);

const durable = (event, data, seq, stream = "run:1") => ({ event, data, stream, seq, timestamp: "2030-01-01T12:00:00Z" });
const tick = (data) => ({ event: "training_progress", data, key: `progress:${data.assignment_id}`, number: 1 });

test("a status is the run's state, and that of its newest round", () => {
  const store = storeOf();

  store.apply(durable("fl_status_update", status({ round: 2, updates_received: 1 }), 1));

  assert.equal(store.run.round, 2);
  assert.deepEqual([store.rounds.get(2).state, store.rounds.get(2).updates_received], ["training", 1]);
  assert.ok(store.changed.has("runs") && store.changed.has("rounds"));
});

test("a status of another run leaves this page's rounds alone", () => {
  const store = storeOf();

  store.apply(durable("fl_status_update", status({ run_id: 2, round: 9 }), 1, "run:2"));

  assert.equal(store.run.round, 1);
  assert.equal(store.rounds.size, 0);
});

test("a tick that comes after the update was accepted changes nothing", () => {
  const store = storeOf();
  store.apply(tick(progress({ progress: 0.9 })));
  store.apply(durable("training_progress", progress({ phase: "accepted", progress: 1 }), 1, "system"));

  store.apply(tick(progress({ progress: 0.95 })));

  assert.equal(store.progress.get(7).phase, "accepted");
});

const gathered = (devices, changes = {}) => ({
  event: "training_progress",
  data: { run_id: 1, round: 1, phase: "training", assignment_id: null, device_id: null, updates_received: null, devices, ...changes },
  key: "progress:1:1:x",
  number: 1,
});
const at = (assignment_id, number, share) => ({ assignment_id, number, device_id: 3, device_name: "clinic", phase: "training", progress: share, local_epoch: 1, local_epochs: 2, loss: 0.5 });

test("a tick of a round holds the newest of each device, and an older one changes nothing", () => {
  const store = storeOf();

  store.apply(gathered([at(7, 10, 0.5), at(8, 10, 0.4)]));
  store.apply(gathered([at(7, 9, 0.3), at(8, 11, 0.6)]));

  assert.deepEqual([...store.progress.values()].map((part) => [part.assignment_id, part.progress, part.round]), [[7, 0.5, 1], [8, 0.6, 1]]);
});

test("what a durable event says of a device is not taken back by a tick from before it", () => {
  const store = storeOf();
  store.apply(gathered([at(7, 10, 0.5)]));
  store.apply(durable("training_progress", progress({ phase: "uploading", progress: 1 }), 1, "system"));

  store.apply(gathered([at(7, 10, 0.5)]));

  assert.equal(store.progress.get(7).phase, "uploading");
});

test("a tick of another run is not of this page", () => {
  const store = storeOf();

  store.apply(gathered([at(7, 10, 0.5)], { run_id: 2 }));

  assert.equal(store.progress.size, 0);
});

test("a tick for a round that is over is ignored", () => {
  const store = storeOf({ runs: [status({ round: 2 })] });

  store.apply(tick(progress({ round: 1 })));

  assert.equal(store.progress.size, 0);
});

test("a new round takes the parts of the old one with it", () => {
  const store = storeOf({ progress: [progress()] });

  store.apply(durable("training_progress", progress({ assignment_id: 8, round: 2 }), 1, "system"));
  store.apply(durable("fl_status_update", status({ round: 2 }), 1));

  assert.deepEqual([...store.progress.keys()], [8]);
});

const count = (changes = {}) => ({
  event: "training_progress",
  data: progress({ assignment_id: null, device_id: null, device_name: null, progress: 0.5, updates_received: 1, ...changes }),
  key: "updates:1",
  number: 1,
});

test("a count of updates is the run's and the round's", () => {
  const store = storeOf();
  store.apply(durable("fl_status_update", status(), 1));

  store.apply(count());

  assert.deepEqual([store.run.updates_received, store.rounds.get(1).updates_received], [1, 1]);
});

test("a count that comes late takes nothing back", () => {
  const store = storeOf();
  store.apply(durable("fl_status_update", status({ updates_received: 2, round_state: "aggregating" }), 1));
  store.apply(durable("fl_status_update", status({ round: 2 }), 2));

  store.apply(count());

  assert.deepEqual([store.run.round, store.run.updates_received], [2, 0]);
  assert.deepEqual([store.rounds.get(1).state, store.rounds.get(1).updates_received], ["aggregating", 2]);
});

test("a round's results come from its completion and from its model, in either order", () => {
  const completed = { run_id: 1, round: 1, phase: "round_completed", metrics: { accuracy: 0.5 }, device_metrics: {}, updates_received: 2, duration_seconds: 3 };
  const model = { run_id: 1, round: 1, phase: "completed", version: 1, metrics: { accuracy: 0.5 }, device_metrics: {}, size_bytes: 10, is_best: true };
  const frames = [durable("training_progress", completed, 1), durable("model_aggregation", model, 2)];

  const lines = [frames, [...frames].reverse()].map((order) => {
    const store = storeOf();
    for (const frame of order) store.apply(frame);
    return store.rounds.get(1);
  });

  assert.deepEqual(lines[0], lines[1]);
  assert.deepEqual([lines[0].version, lines[0].duration_seconds, lines[0].state], [1, 3, "completed"]);
});

test("there is one best model", () => {
  const model = (round) => ({ run_id: 1, round, phase: "completed", version: round, metrics: null, device_metrics: {}, size_bytes: 1, is_best: true });
  const store = storeOf();

  store.apply(durable("model_aggregation", model(1), 1));
  store.apply(durable("model_aggregation", model(2), 2));

  assert.deepEqual([...store.rounds.values()].filter((line) => line.is_best).map((line) => line.number), [2]);
});

test("a status that reads like the one before it is told once", () => {
  const store = storeOf({ runs: [status({ round: null, round_state: null })] });

  store.apply(durable("fl_status_update", status(), 1));
  store.apply(durable("fl_status_update", status({ updates_received: 1 }), 2));
  store.apply(durable("fl_status_update", status({ round_state: "aggregating" }), 3));

  assert.deepEqual(store.told.map((line) => line.title), ["Round 1 started"]);
});

test("the feed is newest first and holds an event once, however often it comes", () => {
  const store = storeOf();
  const frame = durable("training_progress", progress({ phase: "accepted" }), 4, "system");

  store.apply(frame);
  store.apply(frame);
  store.apply(durable("training_progress", progress({ phase: "accepted", device_name: "gateway", assignment_id: 8 }), 5, "system"));

  assert.deepEqual(store.told.map((line) => line.title), ["gateway sent its update", "clinic sent its update"]);
});

test("the feed forgets its oldest lines, and a thousand ticks are one part", () => {
  const store = storeOf();

  for (let seq = 1; seq <= 400; seq += 1) store.apply(durable("training_progress", progress({ phase: "accepted" }), seq, "system"));
  for (let number = 0; number < 1000; number += 1) store.apply(tick(progress({ assignment_id: 9, progress: number / 1000 })));

  assert.equal(store.told.length, 300);
  assert.equal(store.progress.get(9).progress, 0.999);
});

test("of a device only changes of presence and state are told, from what the page began with", () => {
  const device = { device_id: 7, name: "clinic", state: "active", presence: "online" };
  const store = storeOf({ devices: [device] });

  store.apply(durable("device_status", { ...device, name: "the clinic" }, 1, "system"));
  assert.equal(store.devices.get(7).name, "the clinic");
  store.apply(durable("device_status", { ...device, device_id: 8, name: "another" }, 2, "system"));
  store.apply(durable("device_status", { ...device, presence: "offline" }, 3, "system"));
  store.apply(durable("device_status", { ...device, presence: "offline", name: "renamed" }, 4, "system"));
  store.apply(durable("device_status", device, 5, "system"));

  assert.deepEqual(store.told.map((line) => line.title), ["clinic is online", "clinic is offline", "another is online"]);
});

test("an error is news, with what to do", () => {
  const store = storeOf();

  store.apply(durable("error_notification", { severity: "warning", title: "Round 3 failed", detail: "no quorum", action: "Look." }, 1, "system"));

  assert.deepEqual(store.news, [{ severity: "warning", title: "Round 3 failed", detail: "no quorum Look.", count: 1 }]);
});

test("an event that the page does not know is ignored", () => {
  const store = storeOf();

  store.apply({ event: "of_another_age", data: {} });

  assert.equal(store.changed.size, 0);
});

const model = (changes = {}) => ({ run_id: 1, round: 1, phase: "completed", version: 1, metrics: { accuracy: 0.5, loss: 1 }, device_metrics: {}, is_best: false, ...changes });
const emptyCurve = (run_id) => ({ run_id, started_at: "2030-01-01T11:59:50Z", on_devices: false, first: [], rounds: [], seconds: [], accuracy: [], loss: [], best: {}, last: {} });

test("the curves of several runs grow, each by its own events", () => {
  const store = storeOf({ run_id: null, runs: [status(), status({ run_id: 2 })], curves: [emptyCurve(1), emptyCurve(2)] });

  store.apply(durable("model_aggregation", model(), 1));
  store.apply(durable("model_aggregation", model({ run_id: 2, metrics: null, device_metrics: { loss: { mean: 3, p10: 3, p90: 3 } } }), 1, "run:2"));
  store.apply(durable("model_aggregation", model({ run_id: 3 }), 1, "run:3"));
  store.apply(durable("fl_status_update", status({ round: 2, round_state: "failed" }), 2));

  const [first, second] = [store.curves.get(1), store.curves.get(2)];
  assert.deepEqual([first.rounds, first.seconds, first.accuracy], [[1, 2], [10, 10], [0.5, null]]);
  assert.deepEqual([second.rounds, second.loss, second.on_devices], [[1], [3], true]);
  assert.equal(store.curves.size, 2);
});

test("the best of a run stays until a model is better, and its end is when it was told", () => {
  const store = storeOf({ run_id: null });

  store.apply(durable("model_aggregation", model({ is_best: true }), 1));
  store.apply(durable("model_aggregation", model({ round: 2, metrics: { accuracy: 0.25 } }), 2));
  store.apply(durable("fl_status_update", status({ state: "completed", actions: [] }), 3));
  store.apply({ ...durable("fl_status_update", status({ state: "completed", run_name: "renamed", actions: [] }), 4), timestamp: "2030-01-02T12:00:00Z" });

  const { best, last, ended_at } = store.figures.get(1);
  assert.deepEqual([best.value, last.value, ended_at], [0.5, 0.25, "2030-01-01T12:00:00Z"]);
});

const TRASH = { run_id: 1, run_name: "a run", state: "in_trash" };

test("a run that was moved to the trash is known as such until it is restored, and its own page says so", () => {
  const store = storeOf();

  store.apply(durable("run_trash", TRASH, 1, "system"));
  assert.ok(store.trashed.has(1) && store.changed.has("trash"));
  assert.deepEqual(store.news.map(({ title }) => title), ["a run was moved to the trash"]);

  store.apply(durable("run_trash", { ...TRASH, state: "restored" }, 2, "system"));
  assert.equal(store.trashed.size, 0);
  assert.equal(store.news.length, 1);
});

test("a page that is about other runs has no notice of one that goes to the trash", () => {
  const store = storeOf({ page: "runs", run_id: null, runs: [status(), status({ run_id: 2 })] });

  store.apply(durable("run_trash", TRASH, 1, "system"));

  assert.ok(store.trashed.has(1));
  assert.deepEqual(store.news, []);
});
