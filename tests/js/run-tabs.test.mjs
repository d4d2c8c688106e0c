// The tabs of a run: when a page has to read the server's rows again, and which cell of the map is under the pointer.

import assert from "node:assert/strict";
import { test } from "node:test";

import { cellAt } from "../../static/js/parts/heat-map.js";
import { isBehind } from "../../static/js/parts/rounds-table.js";

const FIRST_PAGE = { filter: "", page: 1 };
const row = (number, state = "completed") => ({ number, state });

test("a table is behind when a round is newer than its first row", () => {
  assert.equal(isBehind([row(2), row(1)], [row(2), row(3, "pending")], FIRST_PAGE), true);
  assert.equal(isBehind([row(2), row(1)], [row(2)], FIRST_PAGE), false);
});

test("an older page does not wait for newer rounds", () => {
  assert.equal(isBehind([row(2), row(1)], [row(99, "training")], { filter: "", page: 2 }), false);
});

test("under a filter only what passes it is missing", () => {
  assert.equal(isBehind([row(2, "failed")], [row(3)], { filter: "failed", page: 1 }), false);
  assert.equal(isBehind([row(2, "failed")], [row(3, "failed")], { filter: "failed", page: 1 }), true);
});

test("a table is behind when an open round of it has ended, and not while that goes on", () => {
  assert.equal(isBehind([row(2, "training")], [row(2, "completed")], FIRST_PAGE), true);
  assert.equal(isBehind([row(2, "training")], [row(2, "aggregating")], FIRST_PAGE), false);
});

test("an empty table is behind as soon as there is a round", () => {
  assert.equal(isBehind([], [row(1, "pending")], FIRST_PAGE), true);
  assert.equal(isBehind([], [], FIRST_PAGE), false);
});

const PLACE = { step: 10, row: 24, head: 20, first: 41 };

test("a point of the map is of a round, a device and an end", () => {
  assert.deepEqual(cellAt(15, 50, ["aal", "rf."], PLACE), { round: 42, line: 1, letter: "f" });
  assert.deepEqual(cellAt(0, 20, ["aal", "rf."], PLACE), { round: 41, line: 0, letter: "a" });
});

test("beside the cells there is none", () => {
  assert.equal(cellAt(15, 10, ["aal"], PLACE), null);
  assert.equal(cellAt(30, 30, ["aal"], PLACE), null);
  assert.equal(cellAt(-1, 30, ["aal"], PLACE), null);
  assert.equal(cellAt(15, 60, ["aal"], PLACE), null);
});
