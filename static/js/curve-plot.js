// One plot of a learning curve: a line with the devices' spread as a band, its smoothed form, another run's line beside it,
// and marks where something happened. What it draws is given to it; it decides nothing.

import { integer, loss, percent, plain, seconds } from "./format.js";
import { gettext } from "./texts.js";

export const METRICS = {
  accuracy: { title: gettext("Accuracy"), write: percent, better: (a, b) => a > b, colour: "--curve-accuracy" },
  loss: { title: gettext("Loss"), write: loss, better: (a, b) => a < b, colour: "--curve-loss" },
};
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000];
const DOTS_UP_TO = 80;

// A custom property with light-dark() in it is only resolved where a colour is asked for.
const probe = document.createElement("span");
probe.hidden = true;
probe.style.forcedColorAdjust = "none"; // a canvas shows curves apart by colour, whoever chooses the page's

const resolved = new Map();
document.documentElement.addEventListener("shade", () => resolved.clear());

/** Return a colour of the tokens as the page shows it now. */
export function colour(name, alpha = 1) {
  if (!resolved.has(name)) resolved.set(name, resolve(name)); // each time it would cost a look at the whole page's styles
  return thinned(resolved.get(name), alpha);
}

function resolve(name) {
  if (!probe.isConnected) document.body.append(probe);
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

/** Return a colour, as the browser tells it, with so much of it left. */
export const thinned = (resolved, alpha) => (alpha === 1 ? resolved : resolved.replace(/^rgb\((.*)\)$/, `rgba($1, ${alpha})`));

/**
 * Make a plot. Its data are [x, measured, smoothed, low, high, baseline].
 * @param {HTMLElement} target
 * @param {object} options
 * @param {string} options.name of the metric
 * @param {string} options.axis "round" or "time"
 * @param {boolean} [options.log] the y axis is logarithmic
 * @param {() => {marks: object[], notFinite: number[]}} options.marked what is marked, at x, with a text
 * @param {number} [options.scale] 2 for an image of twice the size
 * @param {object} [options.hooks] of uPlot
 */
export function makePlot(target, data, { name, axis, log = false, marked, scale = 1, size, hooks = {} }) {
  const { colour: token, write } = METRICS[name];
  const line = () => colour(token);
  const px = (value) => value * scale;
  const common = {
    stroke: () => colour("--ink-faint"),
    grid: { stroke: () => colour("--grid"), width: px(1) },
    ticks: { show: false },
    font: `${px(12)}px system-ui, sans-serif`,
  };
  const edge = { stroke: "transparent", points: { show: false }, width: 0 };
  return new window.uPlot(
    {
      ...size,
      legend: { show: false },
      padding: [px(10), px(14), 0, 0],
      cursor: { y: false, sync: { key: "curve" }, drag: { x: true, y: false, setScale: false }, points: { size: px(9), fill: line, stroke: line } },
      scales: { x: { time: false, range: xRange }, y: { distr: log ? 3 : 1, range: log ? logRange : yRange(name) } },
      axes: [
        { ...common, size: px(28), ...(axis === "time" ? { values: (_, splits) => splits.map((value) => (value ? seconds(value) : "0")) } : { incrs: WHOLE, values: (_, splits) => splits.map(integer) }) },
        { ...common, size: px(58), values: (_, splits) => splits.map((value) => (value === null ? "" : shortly(name, value))) },
      ],
      series: [
        {},
        { label: "measured", stroke: () => (isSmoothed(data) ? colour(token, 0.35) : line()), width: px(2), points: { show: (self) => self.data[0].length < DOTS_UP_TO, size: px(5), stroke: line, fill: () => colour("--surface") }, value: (_, value) => write(value) },
        { label: "smoothed", stroke: line, width: px(2), points: { show: false } },
        { ...edge, label: "low" },
        { ...edge, label: "high" },
        { label: "baseline", stroke: () => colour("--ink-faint"), width: px(1.5), dash: [px(6), px(4)], points: { show: false } },
      ],
      bands: [{ series: [4, 3], fill: () => colour(token, 0.14) }],
      hooks: { ...hooks, draw: [(self) => drawMarks(self, marked(), scale)] },
    },
    data,
    target,
  );
}

const isSmoothed = (data) => data[2]?.some((value) => typeof value === "number") ?? false;

function shortly(name, value) {
  const text = plain(Math.round(value * 1000) / 1000);
  return name === "accuracy" ? `${plain(Math.round(value * 1000) / 10)} %` : text === "0" && value ? value.toExponential(0) : text;
}

export const xRange = (_, min, max) => [min ?? 0, Math.max(max ?? 1, (min ?? 0) + 1)];

export function yRange(name) {
  return (_, min, max) => {
    if (min === null || max === null) return [0, 1];
    const room = Math.max((max - min) * 0.08, 0.01);
    return [Math.max(0, min - room), name === "accuracy" ? Math.min(1, max + room) : max + room];
  };
}

/** A logarithmic axis spans whole powers of ten; what is not above 0 has no place on it. */
function logRange(_, min, max) {
  const high = max > 0 ? max : 1;
  const low = min > 0 ? min : high / 1000;
  return [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high) + 1e-9)];
}

/** Draw what happened: a dashed line with its text where there is room, a red sign where no finite number was measured. */
function drawMarks(plot, { marks, notFinite }, scale) {
  const { ctx, bbox } = plot;
  const ratio = window.devicePixelRatio * scale;
  const isSeen = (x) => x >= plot.scales.x.min && x <= plot.scales.x.max;
  ctx.save();
  ctx.font = `${11 * ratio}px system-ui, sans-serif`;
  ctx.lineWidth = ratio;
  ctx.textAlign = "left"; // the axes leave theirs behind
  ctx.textBaseline = "bottom";
  let taken = -Infinity;
  for (const { x, text, tone } of marks) {
    if (!isSeen(x)) continue;
    const left = plot.valToPos(x, "x", true);
    const ink = colour(tone === "bad" ? "--bad-fill" : "--ink-faint");
    ctx.strokeStyle = ctx.fillStyle = ink;
    ctx.setLineDash([3 * ratio, 3 * ratio]);
    ctx.beginPath();
    ctx.moveTo(left, bbox.top);
    ctx.lineTo(left, bbox.top + bbox.height);
    ctx.stroke();
    if (tone === "bad") triangle(ctx, left, bbox.top + bbox.height, 5 * ratio);
    const width = ctx.measureText(text).width + 12 * ratio;
    if (left > taken && left + width < bbox.left + bbox.width) {
      ctx.fillText(text, left + 5 * ratio, bbox.top + bbox.height - 6 * ratio);
      taken = left + width;
    }
  }
  ctx.fillStyle = colour("--bad");
  for (const x of notFinite) if (isSeen(x)) ctx.fillText("NaN", plot.valToPos(x, "x", true) - 10 * ratio, bbox.top + 12 * ratio);
  ctx.restore();
}

function triangle(ctx, x, bottom, size) {
  ctx.setLineDash([]);
  ctx.beginPath();
  ctx.moveTo(x - size, bottom);
  ctx.lineTo(x + size, bottom);
  ctx.lineTo(x, bottom - 1.7 * size);
  ctx.fill();
}
