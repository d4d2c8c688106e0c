// What confirms a command: a status that the server told, and nothing that a page has worked out beside it.

import assert from "node:assert/strict";
import { test } from "node:test";

import { confirmationOf } from "../../static/js/parts/commands.js";
import { Store } from "../../static/js/store.js";

test("stopping after a round is confirmed by the next status, and not by an update that comes in", () => {
  const status = { run_id: 1, state: "running", round: 2, round_state: "training", updates_received: 0, actions: ["stop_after_round", "stop_now"] };
  const store = new Store({ page: "run", run_id: 1, runs: [status], rounds: [], progress: [], devices: [], told: [], now: null }, { keys: {}, lines: {} });
  const before = store.run;
  const isConfirmed = confirmationOf("stop", { after_round: true });

  store.apply({ event: "training_progress", data: { run_id: 1, round: 2, phase: "training", assignment_id: null, updates_received: 1 }, key: "updates:1" });
  const counted = [store.run.updates_received, isConfirmed(store.run, before)];
  store.apply({ event: "fl_status_update", data: { ...status, reason: "stopping after this round", actions: [...status.actions] }, stream: "run:1", seq: 1 });

  assert.deepEqual([counted, isConfirmed(store.run, before)], [[1, false], true]);
});
