// A WebSocket that keeps the protocol's promise on this side: each stream in order, without holes or duplicates, for ever.
// It resumes by position, notices a gap or a dead connection, waits with full jitter, and says when a position is lost.

const FIRST_WAIT = 500;
const LONGEST_WAIT = 30_000;
const STEADY = 10_000;
const WIRE_ERRORS = new Set([1002, 1003, 1007, 1008, 1009, 1010]);
const RESTARTS = new Set([1012, 1013, 4001]); // as edge/protocol/close_codes.py
const RESTART_WAIT = [500, 10_000];
/** How many positions an address says: about 40 bytes each, of which proxies take 8 KB with all headers. */
export const MOST_POSITIONS = 150;
/** A run in one of these states stays in it, and has nothing more to tell. */
export const ENDS = new Set(["completed", "failed", "stopped"]);

/** Return how long to wait before the next attempt, in ms: full jitter under a bound that doubles up to 30 s. */
export const backOff = (attempt, random = Math.random) => random() * Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** Math.min(attempt, 10));

/** Say whether a client that was closed with `code` must not come back by itself; as edge/protocol/close_codes.py. */
export const isTerminal = (code) => WIRE_ERRORS.has(code) || (code >= 4500 && code <= 4999);

/** Write positions as the query of the socket's address; those without an epoch cannot be resumed from. */
export function sinceQuery(positions) {
  const query = new URLSearchParams();
  for (const [stream, { epoch, seq }] of Object.entries(positions)) if (epoch) query.append("since", `${stream}:${epoch}:${seq}`);
  return query.toString();
}

const openSocket = (address) => new WebSocket(address);

function callLater(act, delay) {
  const timer = setTimeout(act, delay);
  return () => clearTimeout(timer);
}

export class LiveSocket {
  #socket = null;
  #attempt = 0;
  #openedAt = 0;
  #callOff = () => {};
  #retryAfter = null;
  #heads = {};
  #numbers = new Map();
  #skipped = new Set();
  #lost = new Map();
  #epochs = {};
  #ended = new Set();
  #namesNone = false;
  #heartbeat = 60_000;
  #asked = null;
  #questions = 0;

  /** How long the newest measured way to the server and back took, in ms, and when that was; null until `measure`. */
  roundTrip = null;

  /**
   * @param {object} options
   * @param {string} options.address of the socket, without positions
   * @param {object} options.positions stream → {epoch, seq} that the page was rendered at
   * @param {(frame: object) => void} options.onFrame takes each event, once and in order
   * @param {(state: object) => void} options.onState takes {name, retryAt, code}: connecting, live, waiting, offline, ended
   * @param {(stream: string) => void} options.onLost a position is lost: what one has is of another history, or too
   *   old; read the page again, or begin anew with the `snapshot` that follows
   * @param {(direction: "in" | "out", text: string) => void} [options.onWire] hears each frame as it crosses the wire
   * @param {(address: string) => WebSocket} [options.open] makes the socket
   * @param {() => number} [options.now] the clock, in ms
   * @param {(act: () => void, delay: number) => () => void} [options.later] calls after a delay in ms; returns how to call it off
   */
  constructor({ address, positions, onFrame, onState, onLost, onWire = () => {}, open = openSocket, now = Date.now, later = callLater }) {
    Object.assign(this, { address, positions: { ...positions }, onFrame, onState, onLost, onWire, open, now, later });
    this.state = { name: "connecting" };
    this.lastHeard = now();
  }

  /** Connect now, whatever one was waiting for. */
  connect() {
    this.#callOff();
    this.#leave();
    this.#say({ name: "connecting" });
    this.#takeBack();
    this.#forgetEnded();
    // The end of a run that the address left out would never be told; to one who says nothing all is told that is true.
    this.#namesNone = Object.keys(this.positions).length > MOST_POSITIONS;
    const query = this.#namesNone ? "" : sinceQuery(this.positions);
    const socket = this.open(query ? `${this.address}?${query}` : this.address);
    this.#socket = socket;
    this.#numbers.clear();
    this.#skipped.clear();
    this.#heads = {};
    this.#asked = null;
    this.lastTried = this.now();
    socket.onopen = () => (this.lastHeard = this.now());
    socket.onmessage = (message) => this.#socket === socket && this.#receive(message.data);
    socket.onclose = (event) => this.#socket === socket && this.#closed(event.code);
  }

  /** Look whether the connection is still alive; called every second, and at once when the page wakes. */
  watch() {
    const silence = this.now() - Math.max(this.lastHeard, this.lastTried ?? 0);
    if (this.state.name === "live" && silence > this.#heartbeat * 1.1 + 20_000) this.connect();
    else if (this.state.name === "connecting" && silence > 15_000) this.#closed(1006);
  }

  /** Measure the way to the server and back, unless that is under way; nothing is measured where one is not live. */
  measure() {
    if (this.state.name !== "live" || this.#asked) return;
    this.#questions += 1;
    this.#asked = { id: `way-${this.#questions}`, at: this.now() };
    this.#send(JSON.stringify({ type: "heartbeat", id: this.#asked.id }));
  }

  /** The page is awake, visible or on line again: do not wait any longer. */
  wake() {
    if (this.state.name === "waiting" || this.state.name === "offline") this.connect();
    else this.watch();
  }

  /** The browser knows that there is no network. */
  loseNetwork() {
    this.#callOff();
    this.#leave();
    this.#say({ name: "offline" });
  }

  /** Leave for good; `connect` begins again. */
  close() {
    this.#callOff();
    this.#leave();
    this.#say({ name: "ended", code: 1000 });
  }

  #say(state) {
    this.state = state;
    this.onState(state);
  }

  #leave() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
  }

  #closed(code) {
    this.#leave();
    if (this.state.name === "live" && this.now() - this.#openedAt >= STEADY) this.#attempt = 0;
    if (isTerminal(code)) return this.#say({ name: "ended", code });
    let delay = backOff(this.#attempt);
    if (this.#retryAfter !== null) delay = this.#retryAfter;
    else if (RESTARTS.has(code)) delay = RESTART_WAIT[0] + Math.random() * (RESTART_WAIT[1] - RESTART_WAIT[0]);
    else if (code === 4013) delay = 30_000 + Math.random() * 5000;
    this.#retryAfter = null;
    this.#attempt += 1;
    this.#say({ name: "waiting", retryAt: this.now() + delay, code });
    this.#callOff = this.later(() => this.connect(), delay);
  }

  /** Stand where one stood in streams that are lost, as long as nothing has told what is true instead. */
  #takeBack() {
    for (const [stream, { before, since }] of this.#lost) {
      if (this.positions[stream] !== since) continue;
      if (before) this.positions[stream] = before;
      else delete this.positions[stream];
    }
    this.#lost.clear();
  }

  #forgetEnded() {
    for (const stream of this.#ended) {
      if (Object.keys(this.positions).length > MOST_POSITIONS) delete this.positions[stream];
      if (!(stream in this.positions)) this.#ended.delete(stream);
    }
  }

  #receive(text) {
    this.lastHeard = this.now();
    this.onWire("in", text);
    const frame = JSON.parse(text);
    switch (frame.event) {
      case "welcome":
        return this.#welcomed(frame.data);
      case "heartbeat":
        return this.#beat(frame.data);
      case "result":
        return this.#answered(frame);
      case "bye":
        this.#retryAfter = frame.data.retry_after_ms ?? null;
        return undefined;
      case "recent_events":
        return this.#recover(frame.data);
      case "snapshot":
        if (this.#namesNone) this.#loseAllBut(frame.data.streams);
        for (const [stream, position] of Object.entries(frame.data.streams)) this.positions[stream] ??= position;
        if (!frame.data.more) this.#lost.clear();
        return this.onFrame(frame);
      default:
        return frame.stream ? this.#durable(frame) : this.#tick(frame);
    }
  }

  #send(text) {
    this.#socket.send(text);
    this.onWire("out", text);
  }

  #welcomed(data) {
    this.#heartbeat = data.heartbeat_seconds * 1000;
    this.#openedAt = this.now();
    this.#epochs = Object.fromEntries(Object.entries(data.streams).map(([stream, { epoch }]) => [stream, epoch]));
    this.#say({ name: "live", time: data.time });
  }

  #loseAllBut(followed) {
    this.#namesNone = false;
    for (const stream of Object.keys(this.positions).filter((name) => !(name in followed))) {
      delete this.positions[stream];
      if (!this.#ended.delete(stream)) this.onLost(stream);
    }
  }

  #beat(data) {
    this.#send('{"type":"heartbeat"}');
    for (const [stream, head] of Object.entries(this.#heads)) {
      // A head told at the last heartbeat has had a whole interval to arrive.
      if ((this.positions[stream]?.seq ?? head) < head) return this.connect();
    }
    this.#heads = { ...data.s };
    return undefined;
  }

  #answered(frame) {
    if (frame.id !== this.#asked?.id) return this.onFrame(frame);
    this.roundTrip = { ms: this.now() - this.#asked.at, at: this.now() };
    this.#asked = null;
    return undefined;
  }

  #durable(frame) {
    const known = this.positions[frame.stream];
    if (known && frame.seq <= known.seq) return;
    if (known && frame.seq > known.seq + 1) {
      this.connect();
      return;
    }
    this.positions[frame.stream] = { epoch: known?.epoch ?? frame.epoch ?? this.#epochs[frame.stream], seq: frame.seq };
    this.#tell(frame);
  }

  #tell(frame) {
    if (frame.event === "fl_status_update" && ENDS.has(frame.data.state)) this.#ended.add(frame.stream);
    this.onFrame(frame);
  }

  #tick(frame) {
    if (frame.key !== undefined && frame.number !== undefined) {
      if (frame.number <= (this.#numbers.get(frame.key) ?? -1)) return;
      if (this.#numbers.size > 5000) this.#numbers.clear();
      this.#numbers.set(frame.key, frame.number);
    }
    this.onFrame(frame);
  }

  #recover(data) {
    const { stream, epoch, since, to, events } = data;
    const known = this.positions[stream] ?? (since === 0 ? { epoch, seq: 0 } : undefined);
    if (known === undefined || this.#skipped.has(stream) || this.#isLost(known, data)) {
      // The stream goes on from here; what is true at this point is told by the snapshot, or by the page read again.
      const { before } = this.#lost.get(stream) ?? { before: this.positions[stream] };
      this.positions[stream] = { epoch, seq: to };
      this.#lost.set(stream, { before, since: this.positions[stream] });
      if (known !== undefined && !this.#skipped.has(stream)) this.onLost(stream);
      this.#skipped.add(stream);
      this.#ended.delete(stream);
    } else {
      for (const logged of events) {
        if (logged.seq <= known.seq) continue;
        this.#tell({ event: logged.event, data: logged.data, timestamp: logged.timestamp, stream, seq: logged.seq, replayed: true });
      }
      this.positions[stream] = { epoch, seq: Math.max(known.seq, to) };
    }
    if (!data.more) this.#skipped.delete(stream);
  }

  #isLost(known, { epoch, since, to, more, reason }) {
    if (since > known.seq) return true;
    // Ahead of the server: what is known is of a history that is no more, whatever the numbers say.
    return Boolean(known.epoch) && (known.epoch !== epoch || reason === "epoch" || (!more && to < known.seq));
  }
}
