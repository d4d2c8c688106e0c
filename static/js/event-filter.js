// Which events a list of them is about: the same as fl/queries/event_filters.py decides of those in the log.

import { SEVERITIES, tell } from "./feed.js";

/** Read a filter from the data attributes that the server wrote. */
export function readFilter({ severity, kind, run, device, text, raw, from, to }) {
  const number = (written) => (written ? Number(written) : null);
  const moment = (written) => (written ? Date.parse(written) : null);
  return { severity, kind, run: number(run), device: number(device), text: text.toLowerCase(), raw: Boolean(raw), from: moment(from), to: moment(to) };
}

/** Say whether a durable event is one that the filter asks for. */
export function matches(filter, { event, data, stream, timestamp }, words) {
  if (!stream || (filter.kind && filter.kind !== event)) return false;
  const names = (number, family, field) => number === null || stream === `${family}:${number}` || data[field] === number;
  if (!names(filter.run, "run", "run_id") || !names(filter.device, "device", "device_id")) return false;
  const at = Date.parse(timestamp);
  if ((filter.from !== null && at < filter.from) || (filter.to !== null && at >= filter.to)) return false;
  if (filter.text && !JSON.stringify(data).toLowerCase().includes(filter.text)) return false;
  const line = tell(words, event, data);
  return filter.severity ? SEVERITIES[filter.severity].has(line?.tone) : filter.raw || line !== null;
}
