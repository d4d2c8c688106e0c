// How numbers and times are written, the same as fl/feed.py writes them; times stand in the viewer's zone.

const time = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const date = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export const percent = (share) => (isNumber(share) ? `${(share * 100).toFixed(2)} %` : "");
export const loss = (value) => (isNumber(value) ? value.toFixed(4) : "");
const signed = (value, places) => `${value < 0 || Object.is(value, -0) ? "−" : "+"}${Math.abs(value).toFixed(places)}`;
export const points = (difference) => (isNumber(difference) ? `${signed(difference * 100, 2)} pp` : "");
export const change = (difference) => (isNumber(difference) ? signed(difference, 4) : "");
export const integer = (value) => (isNumber(value) ? String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, ",") : "");
export const some = (value) => (value ? integer(value) : "");

export function seconds(value) {
  if (!isNumber(value)) return "";
  if (value < 10) return `${value.toFixed(2)} s`;
  if (value < 60) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

export function bytes(value) {
  if (!isNumber(value)) return "";
  for (const [factor, unit] of [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) {
    if (value >= factor) return `${(value / factor).toFixed(1)} ${unit}`;
  }
  return `${value.toFixed(0)} B`;
}

/** Write a moment as hours, minutes and seconds, with the date before it where `kind` is "date". */
export function clock(iso, kind = "time") {
  const moment = new Date(iso);
  if (Number.isNaN(moment.getTime())) return "";
  return (kind === "date" ? date : time).format(moment);
}

/** Write what is left of a time in milliseconds as m:ss. */
export function countdown(milliseconds) {
  const whole = Math.max(0, Math.ceil(milliseconds / 1000));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

export const formats = {
  percent,
  loss,
  points,
  change,
  seconds,
  int: integer,
  bytes,
  some,
  "": (value) => (value === null || value === undefined ? "" : String(value)),
};
