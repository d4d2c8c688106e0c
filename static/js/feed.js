// How events read to a person, from the server's table (fl/feed.py): which line, and its places filled.

import { formats } from "./format.js";

const PLACE = /\{([a-z_.]+)(?::([a-z]+))?\}/g;

const valueAt = (data, path) =>
  path.split(".").reduce((value, part) => (value !== null && typeof value === "object" ? value[part] : undefined), data);

/** Fill the places of a text; null where one of them is empty. */
export function fill(text, data) {
  let whole = true;
  const filled = text.replace(PLACE, (_, path, style = "") => {
    const written = formats[style](valueAt(data, path));
    if (!written) whole = false;
    return written;
  });
  return whole ? filled : null;
}

/** Return the longest key of the table that fits an event, or "". */
export function findKey(words, event, data) {
  let key = [event, ...(words.keys[event] ?? []).map((field) => String(data[field] ?? ""))].join(".");
  while (key && !(key in words.lines)) key = key.slice(0, Math.max(0, key.lastIndexOf(".")));
  return key;
}

/** Tell an event, or return null where it is not told. */
export function tell(words, event, data) {
  const line = words.lines[findKey(words, event, data)];
  const title = line ? fill(line.title, data) : null;
  if (title === null) return null;
  return {
    title,
    detail: joined(line.detail.map((text) => fill(text, data)).filter(Boolean)),
    tone: line.tone,
    icon: line.icon,
    count: (event === "error_notification" && data.count) || 1,
  };
}

/** Put the parts of a detail behind each other: with commas, but for those that are sentences. */
const joined = (parts) => parts.reduce((text, part) => (text ? `${text}${text.endsWith(".") ? "" : ","} ${part}` : part), "");

const TROUBLE = new Set(["warn", "bad"]);

/** Tones that a feed can be narrowed to, by choice; "" is everything. */
export const SEVERITIES = { "": null, warnings: TROUBLE, errors: new Set(["bad"]) };

/** Make one line of equal troubles that follow each other, newest first: the newest, with how many they are. */
export function fold(told) {
  const folded = [];
  for (const line of told) {
    const newer = folded.at(-1);
    if (newer && TROUBLE.has(line.tone) && newer.title === line.title && newer.detail === line.detail) {
      folded[folded.length - 1] = { ...newer, count: newer.count + line.count };
    } else folded.push(line);
  }
  return folded;
}

/** Return whose status an event tells and how it reads, or null; of those in a row that read alike the first is told. */
export function readingOf(words, event, data) {
  const key = findKey(words, event, data);
  if (event === "fl_status_update") return [`run:${data.run_id}`, `${key} ${data.round ?? ""}`];
  return event === "device_status" ? [`device:${data.device_id}`, key] : null;
}

/** Take in an event's reading; say whether it reads like the one before. */
export function readsAsBefore(readings, words, event, data) {
  const [whose, reading] = readingOf(words, event, data) ?? [];
  const isOld = whose !== undefined && readings.get(whose) === reading;
  if (whose !== undefined) readings.set(whose, reading);
  return isOld;
}
