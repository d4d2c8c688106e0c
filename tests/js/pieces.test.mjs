// Asking again: at once, then with pauses, never losing the last wish, and not for a page that nobody looks at.

import assert from "node:assert/strict";
import { test } from "node:test";

import { differenceOf } from "../../static/js/parts/device-list.js";
import { piecesAddress, unhurried } from "../../static/js/pieces.js";

const settle = async () => {
  for (let turn = 0; turn < 5; turn += 1) await Promise.resolve();
};

test("what is asked for in a burst is read at once, and once more after the pause", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  let reads = 0;
  const { ask } = unhurried(async () => (reads += 1), { pause: 100, isSeen: () => true });

  for (let number = 0; number < 10; number += 1) ask();
  await settle();
  const before = reads;
  context.mock.timers.tick(99);
  const within = reads;
  context.mock.timers.tick(1);
  await settle();

  assert.deepEqual([before, within, reads], [1, 1, 2]);
});

test("without another wish nothing is read again", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  let reads = 0;
  const { ask } = unhurried(async () => (reads += 1), { pause: 100, isSeen: () => true });

  ask();
  await settle();
  context.mock.timers.tick(1000);
  await settle();

  assert.equal(reads, 1);
});

test("what failed is read again later", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  let reads = 0;
  const read = async () => {
    reads += 1;
    if (reads === 1) throw new Error("away");
  };
  const { ask } = unhurried(read, { pause: 100, isSeen: () => true });

  ask();
  await settle();
  context.mock.timers.tick(100);
  await settle();
  const soon = reads;
  context.mock.timers.tick(10_000);
  await settle();

  assert.deepEqual([soon, reads], [1, 2]);
});

test("a page that nobody sees reads when it is seen again", async () => {
  let reads = 0;
  let seen = false;
  const { ask, go } = unhurried(async () => (reads += 1), { isSeen: () => seen, pause: 0 });

  ask();
  const hidden = reads;
  seen = true;
  go();
  await settle();

  assert.deepEqual([hidden, reads], [0, 1]);
});

test("the address of the pieces is that of the page, with its filters", () => {
  const here = { pathname: "/devices/", search: "?show=online&q=a+b" };

  assert.equal(piecesAddress({}, here), "/devices/?show=online&q=a+b&pieces=1");
  assert.equal(piecesAddress({ token: "7", none: "" }, here), "/devices/?show=online&q=a+b&pieces=1&token=7");
});

const list = (found, ...keys) => ({ dataset: { found: String(found) }, querySelectorAll: () => keys.map((key) => ({ dataset: { key } })) });

test("how the list would differ is said in words", () => {
  assert.equal(differenceOf(list(2, "1", "2"), list(2, "1", "2")), "");
  assert.equal(differenceOf(list(2, "1", "2"), list(3, "1", "2", "3")), "1 more device matches.");
  assert.equal(differenceOf(list(2, "1", "2"), list(4, "1", "2")), "2 more devices match.");
  assert.equal(differenceOf(list(2, "1", "2"), list(1, "1")), "1 device no longer matches.");
  assert.equal(differenceOf(list(2, "1", "2"), list(2, "2", "1")), "The order is another one now.");
});
