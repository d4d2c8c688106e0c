// Parts that the server makes anew: what could not be read is read later, and never two answers at once.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { Reader } from "../../static/js/reread.js";

const settle = () => new Promise((resolve) => setImmediate(resolve));
const page = { ok: true, text: async () => "" };
let asked;
let reads;

beforeEach(() => {
  asked = [];
  reads = 0;
  globalThis.document = { visibilityState: "visible", addEventListener() {} };
  globalThis.location = { href: "/runs/1/rounds/", reload: () => (location.isReloaded = true) };
  globalThis.DOMParser = class {
    parseFromString() {}
  };
  globalThis.fetch = () => new Promise((answer, fail) => asked.push({ answer, fail }));
});
afterEach(() => ["document", "location", "DOMParser", "fetch"].forEach((name) => delete globalThis[name]));

const readerOf = (options) => new Reader({ querySelectorAll: () => [] }, { every: 2000, onRead: () => (reads += 1), ...options });

async function pass(context, milliseconds) {
  context.mock.timers.tick(milliseconds);
  await settle();
}

for (const [how, end] of [["is not answered", ({ fail }) => fail(new Error("away"))], ["is answered 503", ({ answer }) => answer({ ok: false, status: 503 })]]) {
  test(`what ${how} is asked for again, though nothing else happens`, async (context) => {
    context.mock.timers.enable({ apis: ["setTimeout"] });
    readerOf().ask();
    await pass(context, 1);

    end(asked[0]);
    await settle();
    await pass(context, 10_000);
    asked[1]?.answer(page);
    await settle();
    await pass(context, 60_000);

    assert.deepEqual([asked.length, reads], [2, 1]);
  });
}

test("a second reading waits for the answer of the first, which would else come last", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const reader = readerOf({ every: 0 });
  reader.ask();
  await pass(context, 1);

  reader.ask();
  await pass(context, 60_000);
  const meanwhile = asked.length;
  asked[0].answer(page);
  await settle();
  await pass(context, 1);

  assert.deepEqual([meanwhile, asked.length], [1, 2]);
});

test("while somebody reads nothing is asked for, and afterwards it is", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  let isRead = true;
  readerOf({ waits: () => isRead }).ask();
  await pass(context, 1);
  await pass(context, 5000);
  const meanwhile = asked.length;

  isRead = false;
  await pass(context, 5000);

  assert.deepEqual([meanwhile, asked.length], [0, 1]);
});

test("who is led to the login is led there with the whole page", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  readerOf().ask();
  await pass(context, 1);

  asked[0].answer({ ...page, redirected: true });
  await settle();

  assert.deepEqual([location.isReloaded, reads], [true, 0]);
});
