// What devices do: the newest part counts, ticks that come late change nothing, and a snapshot ends what is over.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Store } from "../../static/js/store.js";
import { deviceNow, openWork } from "../../static/js/work.js";

const WORDS = { keys: {}, lines: {} };
const device = (changes = {}) => ({ device_id: 3, name: "clinic", state: "active", presence: "online", activity: "idle", ...changes });
const part = (changes = {}) => ({ run_id: 1, round: 1, phase: "training", assignment_id: 7, device_id: 3, progress: 0.5, ...changes });
const storeOf = (changes = {}) => new Store({ page: "devices", run_id: null, runs: [], rounds: [], progress: [], devices: [device()], told: [], now: null, ...changes }, WORDS);
const told = (data) => ({ event: "training_progress", data, stream: "system", seq: 1 });
const ticked = (...devices) => ({ event: "training_progress", data: { run_id: 1, round: 1, phase: "training", assignment_id: null, devices }, key: "round:1", number: 1 });

test("pages that are about devices follow the work of every run", () => {
  const store = storeOf();

  store.apply(told(part({ run_id: 9 })));

  assert.equal(openWork(store, 3).run_id, 9);
  assert.equal(deviceNow(store, store.devices.get(3)).activity, "training");
  assert.ok(store.changed.has("work"));
});

test("other pages keep nothing of it", () => {
  const store = storeOf({ page: "run", run_id: 1 });

  store.apply(told(part()));

  assert.equal(store.work, null);
  assert.equal(deviceNow(store, device()).activity, "idle");
});

test("of ticks the highest number counts, and none counts after the end", () => {
  const store = storeOf({ progress: [part({ progress: 0 })] });

  store.apply(ticked(part({ number: 2, progress: 0.6 })));
  store.apply(ticked(part({ number: 1, progress: 0.2 })));
  const share = openWork(store, 3).progress;
  store.apply(told(part({ phase: "accepted", progress: 1 })));
  store.apply(ticked(part({ number: 3, progress: 0.7 })));

  assert.equal(share, 0.6);
  assert.equal(openWork(store, 3), undefined);
  assert.equal(deviceNow(store, store.devices.get(3)).activity, "idle");
});

test("what is told late of an earlier part changes nothing", () => {
  const store = storeOf();
  store.apply(told(part({ assignment_id: 8, round: 2 })));

  store.apply(told(part({ assignment_id: 7, phase: "expired" })));

  assert.equal(openWork(store, 3).round, 2);
});

test("a snapshot ends the work of devices that are idle in it, and begins that of others", () => {
  const store = storeOf({ progress: [part()] });

  store.apply({ event: "snapshot", data: { runs: [], devices: [device(), device({ device_id: 4, activity: "training" })], progress: [part({ device_id: 4, assignment_id: 9 })] } });

  assert.equal(openWork(store, 3), undefined);
  assert.equal(openWork(store, 4).assignment_id, 9);
});

test("work without a device's own frame is the round's count and nobody's", () => {
  const store = storeOf();

  store.apply({ event: "training_progress", data: { run_id: 1, round: 1, phase: "training", assignment_id: null, updates_received: 1 }, key: "updates:1" });

  assert.equal(store.work.size, 0);
});
