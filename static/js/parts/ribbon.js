// The round ribbon: one tick for each round, or for several where there are many. A tick shows shares, never the worst
// case: green for updates received, amber on top for those missed, red for failed rounds, tall and blue for the open one.

import { field, part, setAttribute, setText } from "../dom.js";
import { share } from "../format.js";
import { inOrder } from "../series.js";
import { gettext } from "../texts.js";

const MOST_TICKS = 240;
const WIDEST_STEP = 48;
const HEIGHT = 26;
const OPEN = new Set(["pending", "training", "aggregating", "evaluating"]);

/**
 * Return the ticks of a run.
 * @returns {{from: number, to: number, kind: string, missed: number, failed: number}[]} `missed` and `failed` are shares
 */
export function ticks(rounds, total, most = MOST_TICKS) {
  const size = Math.max(1, Math.ceil(total / most));
  const lines = Array.from({ length: Math.ceil(total / size) }, () => []);
  for (const line of rounds) lines[Math.ceil(line.number / size) - 1]?.push(line);
  return lines.map((own, index) => ({ from: index * size + 1, to: Math.min(total, (index + 1) * size), ...kindOf(own) }));
}

function kindOf(lines) {
  if (!lines.length) return { kind: "planned", missed: 0, failed: 0 };
  if (lines.some((line) => OPEN.has(line.state))) return { kind: "running", missed: 0, failed: 0 };
  if (lines.every((line) => line.state === "stopped")) return { kind: "stopped", missed: 0, failed: 0 };
  const sum = (read) => lines.reduce((total, line) => total + read(line), 0);
  const failed = sum(failedOf) / sum((line) => line.rounds ?? 1);
  const selected = sum((line) => line.selected);
  return { kind: failed === 1 ? "failed" : "complete", missed: selected ? 1 - sum((line) => line.updates_received) / selected : 0, failed };
}

const failedOf = (line) => line.failed ?? (line.state === "failed" ? 1 : 0);

/** Return the columns of a very long run's earlier rounds as lines, each for several rounds. */
export function linesOf(earlier) {
  if (!earlier) return [];
  return earlier.last.map((number, index) => ({
    number,
    state: "completed",
    rounds: number - earlier.first[index] + 1,
    selected: earlier.selected[index],
    updates_received: earlier.updates_received[index],
    failed: earlier.failed[index],
  }));
}

/** Return the rectangles of a tick: [class, y, height]. */
export function rectangles({ kind, missed, failed }) {
  if (kind === "planned") return [["planned", 11, 4]];
  if (kind === "running") return [["running", 0, HEIGHT]];
  if (kind === "stopped" || kind === "failed") return [[kind, 3, 20]];
  const red = Math.round(20 * failed);
  const amber = missed > 0 ? Math.max(3, Math.round((20 - red) * missed)) : 0;
  const parts = [];
  if (amber) parts.push(["missed", 3, amber]);
  if (red) parts.push(["failed", 3 + amber, red]);
  parts.push(["complete", 3 + amber + red, 20 - amber - red]);
  return parts;
}

/**
 * Return what is drawn of ticks within a width: for each kind of rectangle the path of all of them, so that a thousand
 * rounds are no more elements than ten.
 * @returns {Map<string, string>}
 */
export function paths(found, width) {
  const step = Math.min(WIDEST_STEP, width / found.length);
  const side = step - (step > 6 ? 2 : step * 0.25);
  const drawn = new Map();
  found.forEach((tick, index) => {
    for (const [kind, y, height] of rectangles(tick)) {
      drawn.set(kind, (drawn.get(kind) ?? "") + rounded(index * step, y, side, height, Math.min(2, step / 4, height / 2)));
    }
  });
  return drawn;
}

function rounded(x, y, width, height, radius) {
  const [right, down] = [width - 2 * radius, height - 2 * radius].map(short);
  const arc = (across, along) => `a${short(radius)} ${short(radius)} 0 0 1 ${short(across)} ${short(along)}`;
  const corners = [arc(radius, radius), arc(-radius, radius), arc(-radius, -radius), arc(radius, -radius)];
  return `M${short(x + radius)} ${y}h${right}${corners[0]}v${down}${corners[1]}h${-right}${corners[2]}v${-down}${corners[3]}z`;
}

const short = (number) => Math.round(number * 100) / 100;

const KINDS = { planned: gettext("planned"), running: gettext("running"), complete: gettext("complete"), failed: gettext("failed"), stopped: gettext("stopped") };

function words({ from, to, kind, missed }) {
  const rounds = from === to ? gettext("Round {round}", { round: from }) : gettext("Rounds {from} to {to}", { from, to });
  const state = KINDS[kind];
  return missed > 0 ? gettext("{rounds}: {state}, {share} of the updates missed", { rounds, state, share: share(missed) }) : `${rounds}: ${state}`;
}

export function mount(store) {
  const root = part("ribbon");
  const svg = root?.querySelector("svg");
  if (!svg) return null;
  let found = [];
  let width = Math.round(svg.clientWidth);
  const ribbon = {
    slices: ["runs", "rounds"],
    paint() {
      const { run } = store;
      const rounds = [...linesOf(store.earlier), ...inOrder(store.rounds)].filter((line) => line.number > 0);
      found = ticks(rounds, run.rounds);
      setText(field(root, "position"), run.round === null ? gettext("No round yet, {rounds} planned", run) : gettext("Round {round} of {rounds}", run));
      draw(svg, found, width);
      const failed = rounds.reduce((sum, line) => sum + failedOf(line), 0);
      const done = rounds.reduce((sum, line) => sum + (line.state === "completed" ? (line.rounds ?? 1) - failedOf(line) : 0), 0);
      setAttribute(svg, "aria-label", gettext("{done} of {rounds} rounds completed, {failed} failed", { done, rounds: run.rounds, failed }));
    },
  };
  svg.addEventListener("pointermove", ({ offsetX }) => {
    const tick = found[Math.floor(offsetX / Math.min(WIDEST_STEP, width / found.length))];
    setText(svg.querySelector("title"), tick ? words(tick) : "");
  });
  new ResizeObserver(([{ contentRect }]) => {
    width = Math.round(contentRect.width);
    ribbon.paint();
  }).observe(svg);
  return ribbon;
}

function draw(svg, found, width) {
  const drawn = paths(found, width);
  setAttribute(svg, "viewBox", `0 0 ${width} ${HEIGHT}`);
  for (const path of svg.querySelectorAll("path")) setAttribute(path, "d", drawn.get(path.getAttribute("class")) ?? "");
}
