// What the page knows: one state, one reducer for each event. A reducer says which slices it changed; who paints asks for
// those once an animation frame. Everything here is a state told by the server; nothing is made up in between.

import { addPoint, headlineOf, measuredOf } from "./compared.js";
import { readingOf, readsAsBefore, tell } from "./feed.js";
import { ENDS } from "./live-socket.js";
import { gettext } from "./texts.js";
import { takeSnapshot, takeWork, workOf } from "./work.js";

const FEED_LINES = 300;
const OVER = new Set(["accepted", "rejected", "failed", "expired", "cancelled", "late"]);

const byKey = (items, key) => new Map(items.map((item) => [item[key], item]));

export class Store {
  #listeners = [];
  #readings = new Map();

  /**
   * @param {object} state what the page was rendered from
   * @param {object} words the server's tables
   */
  constructor(state, words) {
    this.words = words;
    this.changed = new Set();
    this.reset(state);
    this.changed.clear();
  }

  /** Begin again from what the server rendered. */
  reset(state) {
    this.page = state.page;
    this.runId = state.run_id;
    this.runs = byKey(state.runs, "run_id");
    this.rounds = byKey(state.rounds, "number");
    this.progress = byKey(state.progress, "assignment_id");
    this.work = workOf(state);
    this.devices = byKey(state.devices, "device_id");
    this.marks = [...(state.marks ?? [])];
    this.earlier = state.earlier ?? null;
    this.earlierFacts = state.earlier_facts ?? null;
    this.curves = byKey(state.curves ?? [], "run_id");
    this.figures = byKey(state.figures ?? [], "run_id");
    this.told = state.told.map((line) => ({ ...line, key: `${line.stream}#${line.seq}` }));
    this.news = [];
    this.trashed = new Set();
    this.skew = state.now ? Date.parse(state.now) - Date.now() : 0;
    const readings = (event, statuses) => statuses.map((status) => readingOf(this.words, event, status));
    this.#readings = new Map([...readings("fl_status_update", state.runs), ...readings("device_status", state.devices)]);
    this.#touch("runs", "rounds", "progress", "devices", "work", "feed", "figures", "curves");
  }

  /** Call `listener` whenever something has changed; `changed` says which slices. */
  subscribe(listener) {
    this.#listeners.push(listener);
  }

  /** The run that the page is about. */
  get run() {
    return this.runs.get(this.runId);
  }

  /** The server's time, as well as one knows it. */
  now() {
    return Date.now() + this.skew;
  }

  /** Take in one frame. */
  apply(frame) {
    REDUCERS[frame.event]?.(this, frame.data, frame);
  }

  /** Say that slices changed. */
  touch(...slices) {
    this.#touch(...slices);
  }

  #touch(...slices) {
    for (const slice of slices) this.changed.add(slice);
    for (const listener of this.#listeners) listener();
  }

  /** Put an event at the top of the feed, where it is told and is about this page. */
  tellEvent(frame) {
    const { event, data, stream, seq, timestamp } = frame;
    if (!stream || !this.#concerns(data)) return;
    const line = tell(this.words, event, data);
    const key = `${stream}#${seq}`;
    if (!line || this.told.some((other) => other.key === key)) return;
    if (readsAsBefore(this.#readings, this.words, event, data)) return;
    this.told.unshift({ ...line, key, stream, seq, timestamp });
    this.told.length = Math.min(this.told.length, FEED_LINES);
    this.#touch("feed");
  }

  #concerns(data) {
    return this.runId === null || data.run_id === undefined || data.run_id === null || data.run_id === this.runId;
  }

  /** Merge what is known of a round of the page's run. */
  mergeRound(number, facts) {
    const known = this.rounds.get(number) ?? { ...NEW_ROUND, number };
    this.rounds.set(number, { ...known, ...facts });
    this.#touch("rounds");
  }

  /** Merge what is known of a run's best and newest model, and of its end. */
  mergeFigures(runId, facts) {
    const known = this.figures.get(runId) ?? { run_id: runId, best: null, last: null, ended_at: null };
    this.figures.set(runId, { ...known, ...facts });
    this.#touch("figures");
  }
}

const NEW_ROUND = {
  state: "pending",
  reason: "",
  selected: 0,
  updates_received: 0,
  updates_lost: 0,
  duration_seconds: null,
  ended_at: null,
  metrics: null,
  device_metrics: {},
  version: null,
  size_bytes: null,
  is_best: false,
};

const REDUCERS = {
  fl_status_update(store, data, frame) {
    const known = store.runs.get(data.run_id);
    store.runs.set(data.run_id, data);
    store.touch("runs");
    if (data.run_id === store.runId && data.state === "paused" && known?.state !== "paused") {
      store.marks.push({ round: data.round, at: frame.timestamp, text: data.reason || gettext("paused") });
      store.touch("rounds");
    }
    if (ENDS.has(data.state) && known && !ENDS.has(known.state)) store.mergeFigures(data.run_id, { ended_at: frame.timestamp });
    takeIntoCurve(store, data, frame);
    if (data.run_id === store.runId && data.round !== null && data.round !== undefined) {
      store.mergeRound(data.round, {
        state: data.round_state,
        selected: data.selected,
        updates_received: data.updates_received,
        updates_lost: data.updates_lost,
        ...(data.round_state === "failed" ? { reason: data.reason, ended_at: frame.timestamp } : {}),
      });
      if (known?.round !== data.round) dropOldProgress(store, data.round);
    }
    store.tellEvent(frame);
  },

  training_progress(store, data, frame) {
    if (store.work && takeWork(store.work, data, frame)) store.touch("work");
    if (data.phase === "round_completed") {
      if (data.run_id === store.runId) completeRound(store, data, frame);
    } else if (data.devices?.length) {
      for (const tick of data.devices) takeTick(store, data, tick, frame);
    } else if (data.assignment_id === null) {
      countUpdates(store, data);
    } else if (data.run_id === store.runId) {
      takeProgress(store, data, frame);
    }
    store.tellEvent(frame);
  },

  model_aggregation(store, data, frame) {
    if (data.run_id === store.runId && data.phase === "completed") {
      if (data.is_best) for (const [number, line] of store.rounds) store.rounds.set(number, { ...line, is_best: false });
      const facts = {
        metrics: data.metrics,
        device_metrics: data.device_metrics,
        version: data.version,
        size_bytes: data.size_bytes,
        is_best: data.is_best,
      };
      store.mergeRound(data.round, data.round === 0 ? { ...facts, state: "initial" } : facts);
    }
    if (data.phase === "completed") takeModel(store, data, frame);
    store.tellEvent(frame);
  },

  device_status(store, data, frame) {
    store.devices.set(data.device_id, data);
    store.touch("devices");
    store.tellEvent(frame);
  },

  error_notification(store, data, frame) {
    notify(store, data.severity, data.title, [data.detail, data.action].filter(Boolean).join(" "), data.count);
    store.tellEvent(frame);
  },

  run_trash(store, { run_id, run_name, state }, frame) {
    const isGone = state === "in_trash";
    store.trashed[isGone ? "add" : "delete"](run_id);
    store.touch("trash");
    if (isGone && (run_id === store.runId || store.curves.has(run_id))) notify(store, "warning", gettext("{run_name} was moved to the trash", { run_name }), gettext("This page shows it as it was."));
    store.tellEvent(frame);
  },

  broadcast(store, data, frame) {
    notify(store, data.level, data.message, gettext("From {sender}.", { sender: data.sender }));
    store.tellEvent(frame);
  },

  snapshot(store, data) {
    for (const status of data.runs) {
      store.runs.set(status.run_id, status);
      if (status.run_id === store.runId && status.round) dropOldProgress(store, status.round);
    }
    for (const part of data.progress) if (part.run_id === store.runId) takeProgress(store, part, {});
    for (const device of data.devices) store.devices.set(device.device_id, device);
    if (store.work) takeSnapshot(store.work, data);
    store.touch("runs", "progress", "devices", "work");
  },
};

function notify(store, severity, title, detail, count = 1) {
  store.news.push({ severity, title, detail, count });
  store.touch("news");
}

/** Keep what stands for a run's newest and best model, and put it into the run's curve if the page has one. */
function takeModel(store, data, { timestamp }) {
  const last = headlineOf(data);
  store.mergeFigures(data.run_id, data.is_best ? { best: last, last } : { last });
  const curve = store.curves.get(data.run_id);
  if (!curve) return;
  curve.on_devices ||= data.metrics === null;
  addPoint(curve, { round: data.round, timestamp, accuracy: measuredOf(data, "accuracy"), loss: measuredOf(data, "loss") });
  store.touch("curves");
}

/** A round that failed is a gap in its run's curve. */
function takeIntoCurve(store, data, { timestamp }) {
  const curve = store.curves.get(data.run_id);
  if (!curve) return;
  curve.started_at ??= data.started_at;
  if (data.round_state !== "failed" || curve.rounds.includes(data.round)) return;
  addPoint(curve, { round: data.round, timestamp, accuracy: null, loss: null });
  store.touch("curves");
}

function completeRound(store, data, frame) {
  store.mergeRound(data.round, {
    state: "completed",
    ended_at: frame.timestamp ?? null,
    updates_received: data.updates_received,
    duration_seconds: data.duration_seconds,
    device_metrics: data.device_metrics,
  });
  store.lastCompleted = data;
  store.touch("completed");
}

/** A round's updates only become more: a count that comes late, after the round's next status, changes nothing. */
function countUpdates(store, data) {
  const run = store.runs.get(data.run_id);
  const rises = (known) => known !== undefined && known.updates_received < data.updates_received;
  if (run?.round === data.round && rises(run)) {
    store.runs.set(data.run_id, { ...run, updates_received: data.updates_received });
    store.touch("runs");
  }
  if (data.run_id === store.runId && rises(store.rounds.get(data.round))) {
    store.mergeRound(data.round, { updates_received: data.updates_received });
  }
}

/** One device's newest within the tick of its round; of those of an assignment the highest number counts. */
function takeTick(store, { run_id, round }, tick, frame) {
  const known = store.progress.get(tick.assignment_id);
  if (run_id !== store.runId || (known?.number ?? -1) >= tick.number) return;
  takeProgress(store, { metrics: {}, ...known, run_id, round, ...tick }, frame);
}

function takeProgress(store, data, frame) {
  const round = store.run?.round;
  if (typeof round === "number" && data.round < round) return;
  const known = store.progress.get(data.assignment_id);
  // A tick may come after the event that ended what it tells of.
  if (frame.key && known && OVER.has(known.phase)) return;
  const kept = known && data.local_epoch === null && !OVER.has(data.phase) ? { local_epoch: known.local_epoch, local_epochs: known.local_epochs } : {};
  store.progress.set(data.assignment_id, { ...data, ...kept, number: data.number ?? known?.number });
  store.touch("progress");
}

function dropOldProgress(store, round) {
  for (const [id, part] of store.progress) if (part.round < round) store.progress.delete(id);
  store.touch("progress");
}
