// How numbers and times are written, the same as fl/feed.py writes them; times stand in the viewer's zone.

import { gettext } from "./texts.js";

const lang = globalThis.document?.documentElement.lang || undefined;
/** The page's language, as it is written where the viewer says to be: German in Austria for a German page, if so. */
export const locale = lang && (navigator.languages.find((each) => `${each}-`.startsWith(`${lang}-`)) ?? lang);
const time = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const date = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" });

const marks = { decimal: ".", group: ",", points: "pp" };
/** Write numbers as the server does: with these marks before a fraction, between thousands and after percentage points. */
export const writeWith = (given) => Object.assign(marks, given);

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const fixed = (value, places) => value.toFixed(places).replace(".", marks.decimal);

/** Write a number with the places that it has. */
export const plain = (value) => String(value).replace(".", marks.decimal);
export const percent = (share) => (isNumber(share) ? `${fixed(share * 100, 2)} %` : "");
/** Write a share as whole per cent. */
export const share = (value) => `${Math.round(value * 100)} %`;
export const loss = (value) => (isNumber(value) ? fixed(value, 4) : "");
const signed = (value, places) => `${value < 0 || Object.is(value, -0) ? "−" : "+"}${fixed(Math.abs(value), places)}`;
export const points = (difference) => (isNumber(difference) ? `${signed(difference * 100, 2)} ${marks.points}` : "");
export const change = (difference) => (isNumber(difference) ? signed(difference, 4) : "");
export const integer = (value) => (isNumber(value) ? String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, marks.group) : "");
export const some = (value) => (value ? integer(value) : "");

export function seconds(value) {
  if (!isNumber(value)) return "";
  if (value < 10) return `${fixed(value, 2)} s`;
  if (value < 60) return `${fixed(value, 1)} s`;
  const whole = Math.round(value);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

export function bytes(value) {
  if (!isNumber(value)) return "";
  for (const [factor, unit] of [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) {
    if (value >= factor) return `${fixed(value / factor, 1)} ${unit}`;
  }
  return `${value.toFixed(0)} B`;
}

/** Write a value of a metric with the metric's name. */
export const named = (name, value) => (name === "loss" ? gettext("loss {value}", { value }) : gettext("accuracy {value}", { value }));

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
