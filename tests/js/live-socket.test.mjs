// The socket's promise on this side: each stream in order, once, without holes; and when to come back.

import assert from "node:assert/strict";
import { test } from "node:test";

import { LiveSocket, MOST_POSITIONS, backOff, isTerminal, sinceQuery } from "../../static/js/live-socket.js";

/** A socket whose other end is the test. */
class Wire {
  sent = [];

  constructor(address) {
    this.address = address;
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.left = true;
  }

  says(frame) {
    this.onmessage({ data: JSON.stringify(frame) });
  }

  breaks(code) {
    this.onclose({ code });
  }
}

function connected({ positions = { "run:1": { epoch: "e", seq: 5 } }, welcome = true } = {}) {
  const world = { wires: [], frames: [], states: [], lost: [], wireSaid: [], timers: [], time: 0 };
  world.passes = (milliseconds) => {
    world.time += milliseconds;
    const due = world.timers.filter((timer) => timer.at <= world.time);
    world.timers = world.timers.filter((timer) => timer.at > world.time);
    for (const timer of due) timer.act();
  };
  world.socket = new LiveSocket({
    address: "ws://here/ws/dashboard",
    positions,
    onFrame: (frame) => world.frames.push(frame),
    onState: (state) => world.states.push(state),
    onLost: (stream) => world.lost.push(stream),
    onWire: (direction, text) => world.wireSaid.push([direction, text]),
    open: (address) => {
      world.wires.push(new Wire(address));
      return world.wires.at(-1);
    },
    now: () => world.time,
    later: (act, delay) => {
      const timer = { act, at: world.time + delay };
      world.timers.push(timer);
      return () => (timer.act = () => {});
    },
  });
  world.socket.connect();
  world.wire = () => world.wires.at(-1);
  world.hello = () => world.wire().says({ event: "welcome", data: { heartbeat_seconds: 60, time: "2030-01-01T12:00:00Z", streams: { "run:1": { epoch: "e", seq: 5 } } } });
  if (welcome) world.hello();
  return world;
}

const event = (seq, stream = "run:1") => ({ event: "fl_status_update", stream, seq, data: { at: seq } });
const seqs = (world) => world.frames.map((frame) => frame.seq);

test("the address carries the positions that can be resumed from", () => {
  const query = sinceQuery({ "run:1": { epoch: "a_b-c", seq: 12 }, "run:2": { epoch: undefined, seq: 3 } });

  assert.equal(decodeURIComponent(query), "since=run:1:a_b-c:12");
});

test("events go on in order, and what came before is dropped", () => {
  const world = connected();

  for (const seq of [5, 6, 6, 7, 3]) world.wire().says(event(seq));

  assert.deepEqual(seqs(world), [6, 7]);
});

test("a gap is not passed over: the socket resumes from before it", () => {
  const world = connected();

  world.wire().says(event(6));
  world.wire().says(event(8));

  assert.deepEqual(seqs(world), [6]);
  assert.equal(world.wires.length, 2);
  assert.ok(world.wires[0].left);
  assert.equal(decodeURIComponent(world.wire().address), "ws://here/ws/dashboard?since=run:1:e:6");
});

test("what was missed is replayed once, and live events join it without a seam", () => {
  const world = connected();
  const logged = (seq) => ({ seq, event: "fl_status_update", data: { at: seq }, timestamp: "t" });

  world.wire().says({ event: "recent_events", data: { stream: "run:1", epoch: "e", recovered: true, since: 5, to: 7, events: [logged(6), logged(7)] } });
  world.wire().says(event(7));
  world.wire().says(event(8));

  assert.deepEqual(seqs(world), [6, 7, 8]);
  assert.deepEqual(world.lost, []);
});

test("the newest events of a stream fill what is missing where they reach back far enough", () => {
  const world = connected();
  const events = [4, 5, 6].map((seq) => ({ seq, event: "fl_status_update", data: {}, timestamp: "t" }));

  world.wire().says({ event: "recent_events", data: { stream: "run:1", epoch: "e", recovered: false, reason: "fresh", since: 3, to: 6, events } });

  assert.deepEqual(seqs(world), [6]);
  assert.deepEqual(world.lost, []);
});

test("a history that is another one, or too short, is a lost position", () => {
  for (const data of [{ epoch: "other", since: 5, to: 6 }, { epoch: "e", since: 9, to: 9 }]) {
    const world = connected();

    world.wire().says({ event: "recent_events", data: { stream: "run:1", recovered: false, events: [], ...data } });

    assert.deepEqual(world.lost, ["run:1"]);
  }
});

const recent = (data) => ({ event: "recent_events", data: { stream: "run:1", epoch: "e", recovered: false, events: [], more: false, ...data } });
const logged = (seq) => ({ seq, event: "fl_status_update", data: { at: seq }, timestamp: "t" });

test("after an older copy of the database nothing of the new history is taken for what was known", () => {
  const world = connected({ positions: { "run:1": { epoch: "e", seq: 100 } } });

  world.wire().says(recent({ reason: "epoch", since: 48, to: 98, events: [97, 98].map(logged) }));
  world.wire().says(event(99));
  world.wire().says(event(100));

  assert.deepEqual(world.lost, ["run:1"]);
  assert.deepEqual(seqs(world), [99, 100]);
  assert.deepEqual(world.socket.positions["run:1"], { epoch: "e", seq: 100 });
});

test("a stream that ends before what is known is another history, though nobody says so", () => {
  const world = connected({ positions: { "run:1": { epoch: "e", seq: 100 } } });

  world.wire().says(recent({ reason: "fresh", since: 48, to: 98 }));

  assert.deepEqual(world.lost, ["run:1"]);
});

test("another epoch is another history and is followed from where it stands", () => {
  const world = connected();

  world.wire().says(recent({ epoch: "other", reason: "epoch", since: 0, to: 7, events: [6, 7].map(logged) }));
  world.wire().says(event(8));

  assert.deepEqual(world.lost, ["run:1"]);
  assert.deepEqual(seqs(world), [8]);
  assert.deepEqual(world.socket.positions["run:1"], { epoch: "other", seq: 8 });
});

test("what was lost is lost once, in however many pieces the newest events come", () => {
  const world = connected();

  world.wire().says(recent({ epoch: "other", reason: "epoch", since: 10, to: 12, events: [11, 12].map(logged), more: true }));
  world.wire().says(recent({ epoch: "other", reason: "epoch", since: 12, to: 13, events: [13].map(logged) }));
  world.wire().says(event(14));

  assert.deepEqual(world.lost, ["run:1"]);
  assert.deepEqual(seqs(world), [14]);
});

test("who loses the connection before the snapshot comes again from where it stood", () => {
  const world = connected();
  const lose = () => {
    world.wire().says(recent({ epoch: "other", reason: "epoch", since: 10, to: 12, more: true }));
    world.wire().says(recent({ epoch: "other", reason: "epoch", since: 12, to: 13 }));
    world.wire().says(recent({ stream: "run:9", reason: "fresh", since: 60, to: 61 }));
  };
  const before = structuredClone(world.socket.positions);

  lose();
  world.socket.connect();
  assert.deepEqual(world.socket.positions, before);

  lose();
  world.wire().says({ event: "snapshot", data: { streams: {}, more: true } });
  world.socket.connect();
  assert.deepEqual(world.socket.positions, before);

  lose();
  world.wire().says({ event: "snapshot", data: { streams: {}, more: false } });
  world.socket.connect();
  assert.deepEqual(world.socket.positions, { ...before, "run:1": { epoch: "other", seq: 13 }, "run:9": { epoch: "e", seq: 61 } });
});

test("who reads the page again goes on from there", () => {
  const world = connected();
  world.wire().says(recent({ epoch: "other", reason: "epoch", since: 10, to: 12 }));

  world.socket.positions = { "run:1": { epoch: "other", seq: 12 } };
  world.socket.connect();

  assert.deepEqual(world.socket.positions, { "run:1": { epoch: "other", seq: 12 } });
});

test("a replay in pieces that begins before what is known loses nothing", () => {
  const world = connected();

  world.wire().says(recent({ reason: "fresh", since: 0, to: 3, events: [1, 2, 3].map(logged), more: true }));
  world.wire().says(recent({ reason: "fresh", since: 3, to: 6, events: [4, 5, 6].map(logged) }));

  assert.deepEqual(world.lost, []);
  assert.deepEqual(seqs(world), [6]);
});

test("a stream that begins is followed from its first event, and resumed with the epoch that it carries", () => {
  const world = connected();

  world.wire().says({ ...event(1, "run:2"), epoch: "f" });
  world.wire().says(event(2, "run:2"));

  assert.deepEqual(seqs(world), [1, 2]);
  assert.deepEqual(world.socket.positions["run:2"], { epoch: "f", seq: 2 });
});

test("an older tick of the same key does not replace a newer one", () => {
  const world = connected();
  const tick = (number) => ({ event: "training_progress", key: "progress:1", number, data: { number } });

  for (const number of [1, 3, 2, 4]) world.wire().says(tick(number));

  assert.deepEqual(world.frames.map((frame) => frame.number), [1, 3, 4]);
});

test("a heartbeat is answered; one whose head never arrives ends in a resume", () => {
  const world = connected();

  world.wire().says({ event: "heartbeat", data: { s: { "run:1": 6 } } });
  assert.deepEqual(world.wire().sent, [{ type: "heartbeat" }]);
  world.wire().says({ event: "heartbeat", data: { s: {} } });

  assert.equal(world.wires.length, 2);
});

test("whoever wants to hears each frame as it crosses the wire, either way, those too that are no news", () => {
  const world = connected();
  world.wireSaid.length = 0;

  world.wire().says(event(6));
  world.wire().says(event(6));
  world.wire().says({ event: "heartbeat", data: { s: {} } });
  world.socket.measure();

  assert.deepEqual(world.wireSaid, [
    ["in", JSON.stringify(event(6))],
    ["in", JSON.stringify(event(6))],
    ["in", '{"event":"heartbeat","data":{"s":{}}}'],
    ["out", '{"type":"heartbeat"}'],
    ["out", '{"type":"heartbeat","id":"way-1"}'],
  ]);
  assert.equal(world.frames.length, 1);
});

test("a heartbeat whose head arrives in time changes nothing", () => {
  const world = connected();

  world.wire().says({ event: "heartbeat", data: { s: { "run:1": 6 } } });
  world.wire().says(event(6));
  world.wire().says({ event: "heartbeat", data: { s: {} } });

  assert.equal(world.wires.length, 1);
});

test("a broken connection comes back by itself, for ever", () => {
  const world = connected();

  for (let attempt = 1; attempt <= 50; attempt += 1) {
    world.wire().breaks(1006);
    assert.equal(world.states.at(-1).name, "waiting");
    world.passes(30_000);
    assert.equal(world.wires.length, attempt + 1);
  }
});

test("a code that means stay away is obeyed", () => {
  for (const code of [4500, 4501, 4503, 1002, 1009]) {
    const world = connected();

    world.wire().breaks(code);
    world.passes(60_000);

    assert.deepEqual(world.states.at(-1), { name: "ended", code });
    assert.equal(world.wires.length, 1);
  }
});

test("a server that says when it will be back is asked then", () => {
  const world = connected();

  world.wire().says({ event: "bye", data: { code: 4001, reason: "restarting", retry_after_ms: 7000 } });
  world.wire().breaks(4001);

  assert.equal(world.states.at(-1).retryAt, 7000);
  world.passes(6999);
  assert.equal(world.wires.length, 1);
  world.passes(1);
  assert.equal(world.wires.length, 2);
});

test("a server that restarts without a word is given as much time, whatever its code for that", () => {
  for (const code of [1012, 1013, 4001]) {
    const waits = Array.from({ length: 50 }, () => {
      const world = connected();
      world.wire().breaks(code);
      return world.states.at(-1).retryAt;
    });

    assert.ok(waits.every((wait) => wait >= 500 && wait < 10_000));
    assert.ok(Math.max(...waits) - Math.min(...waits) > 3000, "they are spread");
  }
});

test("silence longer than heartbeats allow is a dead connection", () => {
  const world = connected();

  world.time = 80_000;
  world.socket.watch();
  assert.equal(world.wires.length, 1);
  world.time = 90_000;
  world.socket.watch();

  assert.equal(world.wires.length, 2);
});

test("a page that wakes does not wait any longer", () => {
  const world = connected();
  world.wire().breaks(1006);

  world.socket.wake();

  assert.equal(world.wires.length, 2);
});

test("what an old connection still says is not listened to", () => {
  const world = connected();
  const old = world.wire();

  world.socket.connect();
  old.says(event(6));

  assert.deepEqual(world.frames, []);
});

test("waiting has full jitter under a bound that doubles up to half a minute", () => {
  const bounds = [0, 1, 2, 5, 6, 7, 40].map((attempt) => backOff(attempt, () => 1));

  assert.deepEqual(bounds, [500, 1000, 2000, 16_000, 30_000, 30_000, 30_000]);
  assert.equal(backOff(3, () => 0), 0);
});

test("restarts and what networks do are temporary", () => {
  assert.deepEqual([1000, 1001, 1006, 1011, 1012, 1013, 4001, 4008, 4013].filter(isTerminal), []);
});

test("the way to the server and back is measured when asked for, once at a time", () => {
  const world = connected();
  world.socket.measure();
  world.socket.measure();
  world.passes(18);
  world.wire().says({ event: "result", id: "another", data: {} });
  assert.equal(world.socket.roundTrip, null);

  world.wire().says({ event: "result", id: world.wire().sent[0].id, data: {} });

  assert.deepEqual(world.wire().sent, [{ type: "heartbeat", id: "way-1" }]);
  assert.deepEqual(world.socket.roundTrip, { ms: 18, at: 18 });
  assert.deepEqual(world.frames.map((frame) => frame.id), ["another"]);
});

test("a question that a lost connection left open is asked again on the next", () => {
  const world = connected();
  world.socket.measure();
  world.wire().breaks(1006);
  world.socket.measure();
  world.socket.connect();
  world.hello();

  world.socket.measure();

  assert.deepEqual(world.wire().sent, [{ type: "heartbeat", id: "way-2" }]);
});

const EPOCH = "Kq3v_x-1";
const named = (world) => new URL(world.wire().address).searchParams.getAll("since").map((place) => place.split(":").slice(0, -2).join(":"));
const began = (number) => ({ event: "fl_status_update", stream: `run:${number}`, seq: 1, epoch: EPOCH, data: { run_id: number, state: "running" } });
const ended = (number) => ({ event: "fl_status_update", stream: `run:${number}`, seq: 2, data: { run_id: number, state: "completed" } });
const snapshot = (streams) => ({ event: "snapshot", data: { streams: Object.fromEntries(streams.map((stream) => [stream, { epoch: EPOCH, seq: 2 }])) } });

test("runs that have ended are forgotten before the address is too long, and an open one never", () => {
  const world = connected({ positions: { system: { epoch: EPOCH, seq: 5 } } });
  world.wire().says(began(1));
  for (let number = 100_001; number <= 101_000; number += 1) for (const frame of [began(number), ended(number)]) world.wire().says(frame);

  world.socket.connect();

  assert.ok(world.wire().address.length < 8000 - 1500, "what proxies take, less a cookie and other headers");
  for (const stream of ["system", "run:1", "run:101000"]) assert.ok(named(world).includes(stream), stream);
  assert.equal(Object.keys(world.socket.positions).length, MOST_POSITIONS);
  world.frames.length = 0;
  world.wire().says(recent({ epoch: EPOCH, recovered: true, since: 1, to: 2, events: [2].map(logged) }));
  assert.deepEqual(seqs(world), [2]);
  assert.deepEqual(world.lost, []);
});

test("an end that was missed counts like one that was heard", () => {
  const positions = { system: { epoch: EPOCH, seq: 5 } };
  for (let number = 1; number < MOST_POSITIONS; number += 1) positions[`run:${number}`] = { epoch: EPOCH, seq: 1 };
  const world = connected({ positions });
  const end = { seq: 2, event: "fl_status_update", data: ended(7).data, timestamp: "t" };

  world.wire().says(recent({ stream: "run:7", epoch: EPOCH, recovered: true, since: 1, to: 2, events: [end] }));
  world.wire().says(began(1000));
  world.socket.connect();

  assert.ok(named(world).includes("run:1000"));
  assert.equal(world.socket.positions["run:7"], undefined);
});

test("where more runs are open than an address holds nothing is told twice, and one that ended meanwhile is lost, not forgotten", () => {
  const world = connected({ positions: { system: { epoch: EPOCH, seq: 5 } } });
  const numbers = Array.from({ length: MOST_POSITIONS + 1 }, (_, index) => index + 1);
  for (const number of numbers) world.wire().says(began(number));
  world.frames.length = 0;

  world.socket.connect();
  const [first, ...others] = numbers.map((number) => `run:${number}`);
  for (const stream of others) world.wire().says(recent({ stream, epoch: EPOCH, reason: "fresh", since: 0, to: 2, events: [1, 2].map(logged) }));

  assert.deepEqual(named(world), []);
  assert.deepEqual(seqs(world), others.map(() => 2));
  assert.deepEqual(world.lost, []);
  world.wire().says(snapshot(["system", ...others]));
  assert.deepEqual(world.lost, [first]);
  assert.equal(world.socket.positions[first], undefined);
});

test("a run that is not followed any more is not lost where one said where one stands", () => {
  const world = connected({ positions: { system: { epoch: EPOCH, seq: 5 }, "run:1": { epoch: EPOCH, seq: 5 } } });

  world.wire().says(snapshot(["system"]));

  assert.deepEqual(world.lost, []);
  assert.deepEqual(world.socket.positions["run:1"], { epoch: EPOCH, seq: 5 });
});
