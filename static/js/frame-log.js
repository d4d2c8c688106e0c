// The frames of the inspector: the newest of what crossed the wire, filtered, and held still while one wants it so.

import { gettext } from "./texts.js";

const MOST = 1000;
const encoder = new TextEncoder();

/** Read a frame as it crossed the wire; what is no JSON is kept as it is. */
function read(text) {
  try {
    const frame = JSON.parse(text);
    return frame !== null && typeof frame === "object" ? frame : {};
  } catch {
    return {};
  }
}

/** Say where in which stream a frame is: `run:4#17`, the reach of a replay, a tick's key, or nothing. */
function placeOf({ stream, seq, key, number, data }) {
  if (stream !== undefined) return `${stream}#${seq}`;
  if (key !== undefined) return `${key} ${number}`;
  if (data?.stream === undefined || data.to === undefined) return "";
  return data.since < data.to ? `${data.stream}#${data.since + 1}–${data.to}` : gettext("{stream} up to #{seq}", { stream: data.stream, seq: data.to });
}

export class FrameLog {
  #next = 0;

  constructor(most = MOST) {
    this.most = most;
    this.frames = [];
    this.dropped = 0;
    this.missed = 0;
    this.paused = false;
  }

  /**
   * Take in a frame; while paused it is only counted.
   * @param {"in" | "out"} direction as seen from the page
   * @param {string} text as it crossed the wire
   * @param {number} at when, in ms
   */
  add(direction, text, at) {
    if (this.paused) {
      this.missed += 1;
      return;
    }
    const frame = read(text);
    this.frames.push({
      id: this.#next++,
      direction,
      text,
      at,
      event: String(frame.event ?? frame.type ?? ""),
      place: placeOf(frame),
      size: encoder.encode(text).length,
    });
    // In larger steps than one, since each moves all that follow.
    if (this.frames.length > this.most * 1.1) this.#drop(this.frames.length - this.most);
  }

  /** Return the kept frames that are of this event and hold this text, newest first. */
  matching(event = "", text = "") {
    this.#drop(Math.max(0, this.frames.length - this.most));
    const wanted = text.toLowerCase();
    return this.frames.filter((frame) => (!event || frame.event === event) && (!wanted || frame.text.toLowerCase().includes(wanted))).reverse();
  }

  /** Return the names of the events that are kept, by the alphabet. */
  events() {
    return [...new Set(this.frames.map((frame) => frame.event))].sort();
  }

  /** Take no more in; what comes is counted. */
  pause() {
    this.paused = true;
    this.missed = 0;
  }

  /** Go on. */
  resume() {
    this.paused = false;
  }

  /** Forget all. */
  clear() {
    this.frames = [];
    this.dropped = 0;
    this.missed = 0;
  }

  #drop(count) {
    this.frames.splice(0, count);
    this.dropped += count;
  }
}

/** Write frames as JSON lines, oldest first: time, direction, and the frame letter for letter. */
export function asJsonLines(newestFirst) {
  return newestFirst
    .map(({ at, direction, text }) => `{"at":${JSON.stringify(new Date(at).toISOString())},"direction":"${direction}","frame":${text}}\n`)
    .reverse()
    .join("");
}

/** Write a frame over several lines, its numbers as they came where the browser can read them so. */
export function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
