// The inspector's log: the newest frames, what was dropped and missed, and what is copied.

import assert from "node:assert/strict";
import { test } from "node:test";

import { FrameLog, asJsonLines, pretty } from "../../static/js/frame-log.js";

const durable = (seq, event = "device_status") => JSON.stringify({ event, stream: "system", seq, data: { name: "Zürich" } });

function filled(count, most = 10) {
  const log = new FrameLog(most);
  for (let seq = 1; seq <= count; seq += 1) log.add("in", durable(seq), 0);
  return log;
}

test("a frame has its event, its place in the log, and its size in bytes", () => {
  const log = new FrameLog();
  const text = durable(7);

  log.add("in", text, 5);

  const [frame] = log.matching();
  assert.deepEqual([frame.event, frame.place, frame.at, frame.direction], ["device_status", "system#7", 5, "in"]);
  assert.equal(frame.size, Buffer.byteLength(text));
});

test("what has no place in a stream says what it has: a tick its key, a replay its reach, a client's message its type", () => {
  const log = new FrameLog();

  log.add("in", '{"event":"training_progress","key":"round:1","number":4,"data":{}}', 0);
  log.add("in", '{"event":"recent_events","data":{"stream":"run:1","since":5,"to":7,"events":[]}}', 0);
  log.add("in", '{"event":"recent_events","data":{"stream":"run:2","since":7,"to":7,"events":[]}}', 0);
  log.add("out", '{"type":"heartbeat"}', 0);

  assert.deepEqual(log.matching().map((frame) => [frame.event, frame.place]), [
    ["heartbeat", ""],
    ["recent_events", "run:2 up to #7"],
    ["recent_events", "run:1#6–7"],
    ["training_progress", "round:1 4"],
  ]);
});

test("only the newest are kept, and it is said how many were dropped", () => {
  const log = filled(25);

  const places = log.matching().map((frame) => frame.place);

  assert.deepEqual(places, Array.from({ length: 10 }, (_, index) => `system#${25 - index}`));
  assert.equal(log.dropped, 15);
});

test("frames are found by their event and by what is in them, in upper or lower case", () => {
  const log = filled(3);
  log.add("in", durable(4, "broadcast"), 0);

  assert.deepEqual(log.matching("broadcast").map((frame) => frame.place), ["system#4"]);
  assert.equal(log.matching("", "zürich").length, 4);
  assert.equal(log.matching("", "nowhere").length, 0);
  assert.deepEqual(log.events(), ["broadcast", "device_status"]);
});

test("while paused nothing is taken in, and what came is counted", () => {
  const log = filled(1);

  log.pause();
  log.add("in", durable(2), 0);
  log.add("in", durable(3), 0);
  const missed = log.missed;
  log.resume();
  log.add("in", durable(4), 0);

  assert.equal(missed, 2);
  assert.deepEqual(log.matching().map((frame) => frame.place), ["system#4", "system#1"]);
});

test("after it was cleared nothing is left, and nothing counts as dropped", () => {
  const log = filled(25);

  log.clear();

  assert.deepEqual([log.matching(), log.dropped], [[], 0]);
});

test("what is copied is one JSON object a line, oldest first, with the frame letter for letter", () => {
  const log = filled(2);

  const lines = asJsonLines(log.matching()).trimEnd().split("\n");

  assert.deepEqual(lines.map((line) => JSON.parse(line).frame.seq), [1, 2]);
  assert.ok(lines[0].includes(durable(1)));
  assert.equal(JSON.parse(lines[0]).at, "1970-01-01T00:00:00.000Z");
});

test("what is no JSON is shown as it came", () => {
  const log = new FrameLog();

  log.add("in", "no JSON", 0);

  assert.equal(pretty(log.matching()[0].text), "no JSON");
});
