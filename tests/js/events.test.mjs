// The page of all events: how many wait to be shown, however many that are.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Waiting } from "../../static/js/parts/events.js";

test("events that wait are counted, and those that a page read again has no longer wait", () => {
  const waiting = new Waiting();
  for (const seq of [6, 7, 8]) waiting.take({ stream: "system", seq });
  waiting.take({ stream: "run:2", seq: 1 });
  const before = waiting.count;

  waiting.leaveOut({ system: { seq: 7 } });

  assert.deepEqual([before, waiting.count, waiting.kept], [4, 1, [{ stream: "system", seq: 8 }]]);
});

test("of very many events that wait only the newest are kept one by one, and all are counted", () => {
  const waiting = new Waiting();

  for (let seq = 1; seq <= 5000; seq += 1) waiting.take({ stream: "system", seq });

  assert.equal(waiting.count, 5000);
  assert.ok(waiting.kept.length <= 1000);
  waiting.leaveOut({ system: { seq: 4990 } });
  assert.equal(waiting.count, 10);
});
