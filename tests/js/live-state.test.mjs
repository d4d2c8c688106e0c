// The newest of each kind as a value that changes, and the document's React example, run as it stands.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";

import { liveState } from "../../static/js/live-state.js";
import { find, roots, textOf } from "./react-stand-in.mjs";

const at = (path) => new URL(path, import.meta.url);

class Wire {
  static all = [];
  sent = [];

  constructor(address) {
    this.address = address;
    Wire.all.push(this);
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close(code) {
    this.left = code;
  }

  says(event, data, place = {}) {
    this.onmessage({ data: JSON.stringify({ event, data, ...place }) });
  }
}

const newest = () => Wire.all.at(-1);
const welcome = { heartbeat_seconds: 60, time: "2030-01-01T12:00:00Z", streams: { "run:1": { epoch: "e", seq: 0 } } };
const followed = () => {
  const live = liveState("ws://here/ws/dashboard", { open: (address) => new Wire(address), page: new EventTarget() });
  const changes = [];
  const leave = live.subscribe(() => changes.push(live.current()));
  return { live, changes, leave };
};

test("it connects at the first who subscribes and leaves with the last", () => {
  const before = Wire.all.length;
  const { live, leave } = followed();
  const leaveToo = live.subscribe(() => {});
  assert.equal(Wire.all.length, before + 1);
  newest().says("welcome", welcome);
  assert.equal(live.current().isConnected, true);

  leave();
  assert.equal(newest().left, undefined);
  leaveToo();

  assert.equal(newest().left, 1000);
  assert.equal(live.current().isConnected, false);
});

test("the newest of each kind is kept, and without news the value stays the same", () => {
  const { live, leave } = followed();
  newest().says("welcome", welcome);
  newest().says("snapshot", { streams: {}, runs: [{ run_id: 1, state: "running" }], models: [{ version: 3 }], devices: [], progress: [] });
  assert.deepEqual([live.current().flStatus.state, live.current().modelAggregation.version], ["running", 3]);

  newest().says("fl_status_update", { run_id: 1, state: "paused" }, { stream: "run:1", seq: 1 });
  newest().says("error_notification", { title: "oh" }, { stream: "run:1", seq: 2 });

  assert.equal(live.current().flStatus.state, "paused");
  assert.equal(live.current().errorNotification.title, "oh");
  assert.equal(live.current(), live.current());
  live.clearError();
  assert.equal(live.current().errorNotification, null);
  leave();
});

test("what is of another history is forgotten", () => {
  const { live, leave } = followed();
  newest().says("welcome", welcome);
  newest().says("recent_events", { stream: "run:1", epoch: "e", recovered: false, reason: "fresh", events: [], since: 0, to: 0, more: false });
  newest().says("device_status", { name: "clinic" }, { stream: "run:1", seq: 1 });

  live.reconnect();
  newest().says("recent_events", { stream: "run:1", epoch: "other", recovered: false, reason: "epoch", events: [], since: 0, to: 9, more: false });

  assert.equal(live.current().deviceStatus, null);
  leave();
});

test("the example of the document has twenty lines and does what it says", async () => {
  const text = await readFile(at("../../docs/react.md"), "utf8");
  const [, example] = text.match(/```js\n([\s\S]*?)```/);
  const lines = example.split("\n").filter((line) => line.trim());
  assert.ok(lines.length <= 20, `${lines.length} lines`);
  const standIn = JSON.stringify(at("./react-stand-in.mjs").href);
  const runnable = example
    .replace('"react"', standIn)
    .replace('"react-dom/client"', standIn)
    .replace('"./qflare/live-state.js"', JSON.stringify(at("../../static/js/live-state.js").href));
  const folder = await mkdtemp(join(tmpdir(), "react-"));
  const path = join(folder, "example.mjs");
  await writeFile(path, runnable);
  globalThis.WebSocket = Wire;
  globalThis.document = { getElementById: (id) => id };
  try {
    await import(pathToFileURL(path));
    const [root] = roots;
    assert.equal(textOf(root.tree), "Reconnecting");
    assert.equal(newest().address, "ws://localhost:8000/ws/dashboard");

    newest().says("welcome", welcome);
    newest().says("fl_status_update", { run_name: "trial", round: 2, rounds: 5 }, { stream: "run:1", seq: 1 });
    newest().says("training_progress", { devices: [{ device_id: 1, device_name: "clinic", progress: 0.5 }] }, { key: "progress:1", number: 1 });
    newest().says("error_notification", { title: "Round 1 failed" }, { stream: "run:1", seq: 2 });
    assert.equal(textOf(root.tree), "Live|trial: round 2 of 5|clinic 50 %|Round 1 failed");

    find(root.tree, "p").at(-1).properties.onClick();
    assert.equal(textOf(root.tree), "Live|trial: round 2 of 5|clinic 50 %");
    const before = Wire.all.length;
    find(root.tree, "button")[0].properties.onClick();
    assert.equal(Wire.all.length, before + 1);
    root.unsubscribe();
  } finally {
    await rm(folder, { recursive: true });
  }
});
