// A tap: what is told before somebody listens is kept, until everybody is there.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Tap } from "../../static/js/tap.js";

const heardBy = (tap) => {
  const heard = [];
  tap.hear((...what) => heard.push(what));
  return heard;
};

test("what is told before a listener is there is told to it first, in order", () => {
  const tap = new Tap();

  tap.tell("in", 1);
  tap.tell("in", 2);
  const heard = heardBy(tap);
  tap.tell("out", 3);

  assert.deepEqual(heard, [["in", 1], ["in", 2], ["out", 3]]);
});

test("once it is open nothing is kept for those who come late", () => {
  const tap = new Tap();
  const first = heardBy(tap);

  tap.tell(1);
  tap.open();
  tap.tell(2);
  const second = heardBy(tap);
  tap.tell(3);

  assert.deepEqual(first, [[1], [2], [3]]);
  assert.deepEqual(second, [[3]]);
});
