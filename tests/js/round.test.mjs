// The current round: who is in trouble stands first, and many devices are squares that say what they stand for.

import assert from "node:assert/strict";
import { test } from "node:test";

import { summaryOf } from "../../static/js/mosaic.js";
import { wayOf } from "../../static/js/parts/connection.js";
import { matching } from "../../static/js/palette.js";
import { inOrder } from "../../static/js/parts/round.js";

const TROUBLED = ["rejected", "failed"];

test("those in trouble stand first, all others by name, however far they are", () => {
  const part = (device_name, phase) => ({ device_name, phase });
  const parts = [part("d", "accepted"), part("c", "training"), part("b", "failed"), part("a", "rejected"), part("e", "assigned")];

  assert.deepEqual(inOrder(parts, TROUBLED).map((each) => each.device_name), ["a", "b", "c", "d", "e"]);
});

test("a mosaic says in words how many there are of each state", () => {
  const cells = [{ word: "Received" }, { word: "Received" }, { word: "Training" }];

  assert.equal(summaryOf(cells), "3 devices: 2 received, 1 training");
  assert.equal(summaryOf(cells.slice(2)), "1 device: 1 training");
});

test("the way there and back is told with its age once it is not new", () => {
  assert.equal(wayOf(null, 0), "");
  assert.equal(wayOf({ ms: 17.6, at: 0 }, 1000), "18 ms");
  assert.equal(wayOf({ ms: 0.2, at: 0 }, 130_000), "1 ms, 2 min ago");
});

test("the palette finds what has all words in it, names that begin so first", () => {
  const entries = [{ title: "All runs", kind: "page" }, { title: "Runs", kind: "page" }, { title: "Devices", kind: "page" }];

  assert.deepEqual(matching(entries, "runs").map(({ title }) => title), ["Runs", "All runs"]);
  assert.deepEqual(matching(entries, "dev page").map(({ title }) => title), ["Devices"]);
  assert.equal(matching(entries, "").length, 3);
});
