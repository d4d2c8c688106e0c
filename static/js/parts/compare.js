// Curves of several runs over each other: accuracy above loss, one cursor for both. Colours and dashes are the legend's.
// Points come as rounds end; a zoom stays where it is.

import { align, indexAt } from "../compared.js";
import { colour, thinned, xRange, yRange } from "../curve-plot.js";
import { field, part, setAttribute, setField, setText, setWord, show, syncList } from "../dom.js";
import { integer, loss, named, percent, plain, seconds } from "../format.js";
import { gettext } from "../texts.js";

const WRITE = { accuracy: percent, loss };
const ROWS = 100;
const EDGE = { stroke: "transparent", width: 0, points: { show: false } };

export function mount(store) {
  const root = part("compare");
  if (!root || !window.uPlot) return null;
  const chart = new Comparison(root, store);
  return {
    slices: ["runs", "curves"],
    paint() {
      chart.update();
      paintBests(part("bests"), store);
      paintValues(part("values"), store);
    },
  };
}

class Comparison {
  /** Of each run: gives its line's colour, which changes between light and dark. */
  #strokes = [];

  constructor(root, store) {
    Object.assign(this, { root, store, axis: root.dataset.x, zoomed: false, at: null, plots: {}, drawn: "" });
    root.querySelector("[data-reset]").addEventListener("click", () => this.#reset());
    document.documentElement.addEventListener("shade", () => this.#each((plot) => plot.redraw(false)));
    this.wide = this.curves.filter((curve) => curve.low.accuracy.length).map((curve) => curve.run_id);
    this.#strokes = this.curves.map(({ run_id }) => () => getComputedStyle(this.#swatch(run_id)).stroke);
    for (const target of root.querySelectorAll("[data-plot]")) this.plots[target.dataset.plot] = this.#plot(target);
    this.#keys();
  }

  get curves() {
    return [...this.store.curves.values()];
  }

  #data(name) {
    return align(this.curves, name, this.axis, this.wide.map((id) => this.store.curves.get(id)));
  }

  update() {
    for (const curve of this.curves) {
      const link = field(this.root.querySelector(`[data-legend="${curve.run_id}"]`), "name");
      setText(link, this.store.runs.get(curve.run_id)?.run_name ?? link.textContent);
    }
    const version = JSON.stringify(this.curves.map((curve) => [curve.run_id, curve.rounds.length, curve.accuracy.at(-1), curve.loss.at(-1)]));
    if (version === this.drawn) return;
    this.drawn = version;
    this.root.dataset.points = String(this.curves.reduce((sum, curve) => sum + curve.rounds.length, 0));
    this.#each((plot, name) => {
      const range = this.zoomed ? { ...plot.scales.x } : null;
      plot.setData(this.#data(name), true);
      if (range) plot.setScale("x", { min: range.min, max: range.max });
    });
  }

  #plot(target) {
    const name = target.dataset.plot;
    const axis = { stroke: () => colour("--ink-faint"), grid: { stroke: () => colour("--grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const steps = this.axis === "time" ? {} : { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] };
    const ticks = { values: (_, splits) => splits.map(this.axis === "time" ? seconds : integer) };
    const values = name === "accuracy" ? (_, splits) => splits.map((value) => `${plain(Math.round(value * 1000) / 10)} %`) : (_, splits) => splits.map((value) => plain(Math.round(value * 1000) / 1000));
    const plot = new window.uPlot(
      {
        width: target.clientWidth || 600,
        height: target.clientHeight,
        legend: { show: false },
        padding: [10, 14, 0, 0],
        cursor: {
          y: false,
          sync: { key: "compare" },
          drag: { x: true, y: false, setScale: false },
          points: { size: 9, fill: (_, index) => this.#stroke(index), stroke: (_, index) => this.#stroke(index) },
          dataIdx: (self, series, index) => ownIndex(self.data[series], index),
        },
        scales: { x: { time: false, range: xRange }, y: { range: yRange(name) } },
        axes: [{ ...axis, ...steps, ...ticks, size: 28 }, { ...axis, values, size: 58 }],
        series: [{}, ...this.curves.map(({ run_id }, index) => this.#series(run_id, this.#strokes[index])), ...this.wide.flatMap(() => [EDGE, EDGE])],
        bands: this.wide.map((id, index) => this.#band(id, index)),
        hooks: {
          setCursor: [(self) => this.#readAt(self.cursor.idx === null || self.cursor.idx === undefined ? null : (self.data[0][self.cursor.idx] ?? null))],
          setSelect: [(self) => this.#zoom(self)],
        },
      },
      this.#data(name),
      target,
    );
    plot.over.addEventListener("dblclick", () => this.#reset());
    new ResizeObserver(() => plot.setSize({ width: target.clientWidth, height: target.clientHeight })).observe(target);
    return plot;
  }

  /** What colours the cursor's point on a line; on the edges of a band there is none. */
  #stroke(index) {
    return this.#strokes[index - 1]?.() ?? "transparent";
  }

  /** Between the least and the greatest of the rounds that share a column. */
  #band(runId, index) {
    const low = 1 + this.curves.length + 2 * index;
    const stroke = this.#strokes[this.curves.findIndex((curve) => curve.run_id === runId)];
    return { series: [low + 1, low], fill: () => thinned(stroke(), 0.2) };
  }

  /** A run's line, as its swatch in the legend is drawn. */
  #series(runId, stroke) {
    const dash = getComputedStyle(this.#swatch(runId)).strokeDasharray.match(/[\d.]+/g)?.map(Number) ?? [];
    const isSparse = (self) => self.data[0].length < 60;
    return { label: String(runId), stroke, dash, width: 2, points: { show: isSparse, size: 5, stroke, fill: () => colour("--surface") } };
  }

  #swatch(runId) {
    return this.root.querySelector(`[data-legend="${runId}"] .swatch`);
  }

  #zoom(plot) {
    if (plot.select.width < 4) return;
    const min = plot.posToVal(plot.select.left, "x");
    const max = plot.posToVal(plot.select.left + plot.select.width, "x");
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    if (this.axis === "round" && max - min < 1) return;
    this.zoomed = true;
    this.#each((other) => other.setScale("x", { min, max }));
    show(this.root.querySelector("[data-reset]"), true);
  }

  #reset() {
    this.zoomed = false;
    show(this.root.querySelector("[data-reset]"), false);
    this.#each((plot, name) => plot.setData(this.#data(name), true));
  }

  #each(act) {
    for (const [name, plot] of Object.entries(this.plots)) act(plot, name);
  }

  #readAt(x) {
    if (x === this.at) return;
    this.at = x;
    const reading = field(this.root, "reading");
    this.rest ??= [...reading.childNodes];
    if (x === null) reading.replaceChildren(...this.rest);
    else setText(reading, this.#sentence(x));
  }

  /** Say each run's own newest point at or before `x`: no value is made up between two. */
  #sentence(x) {
    const told = this.curves.map((curve) => {
      const index = indexAt(curve, this.axis, x);
      const label = this.root.querySelector(`[data-legend="${curve.run_id}"] .mono`).textContent;
      if (index < 0) return `${label} –`;
      return `${label} ${this.#at(curve, index)}`;
    });
    const values = told.join("; ");
    return this.axis === "time" ? gettext("After {time}: {values}", { time: seconds(x), values }) : gettext("Round {round}: {values}", { round: x, values });
  }

  #at(curve, index) {
    const values = Object.keys(this.plots).map((name) => wordsOf(curve, name, index)).join(", ");
    const [first, round] = [curve.first[index], curve.rounds[index]];
    if (first < round) return gettext("{values} (rounds {first} to {round})", { values, first, round });
    return this.axis === "time" ? gettext("{values} (round {round})", { values, round }) : values;
  }

  #keys() {
    const [name, plot] = Object.entries(this.plots)[0];
    const target = this.root.querySelector(`[data-plot="${name}"]`);
    const reading = field(this.root, "reading");
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    target.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      const xs = plot.data[0];
      if (step === undefined || !xs.length) return;
      event.preventDefault();
      reading.setAttribute("aria-live", "polite");
      const now = this.at === null ? (step > 0 ? -1 : xs.length) : xs.indexOf(this.at);
      const next = Math.min(xs.length - 1, Math.max(0, now + step));
      plot.setCursor({ left: plot.valToPos(xs[next], "x"), top: 1 });
    });
    target.addEventListener("blur", () => {
      reading.setAttribute("aria-live", "off");
      this.#each((each) => each.setCursor({ left: -10, top: -10 }));
    });
  }
}

/** Return the nearest index at or before `index` where a run has a point of its own. */
function ownIndex(values, index) {
  for (let own = index; own >= 0; own -= 1) if (values[own] !== undefined) return own;
  return index;
}

/** Say what a column of a curve has: the value of its round, or the mean of its rounds and how far they reach. */
function wordsOf(curve, name, index) {
  const write = WRITE[name];
  if (curve[name][index] === null) return named(name, gettext("not measured"));
  const value = write(curve[name][index]);
  if (curve.first[index] === curve.rounds[index]) return named(name, value);
  return named(name, gettext("{value} ({low} to {high})", { value, low: write(curve.low[name][index]), high: write(curve.high[name][index]) }));
}

function paintBests(root, store) {
  for (const curve of store.curves.values()) {
    const row = root?.querySelector(`[data-run="${curve.run_id}"]`);
    if (!row) continue;
    const status = store.runs.get(curve.run_id);
    if (status) {
      const cell = field(row, "state");
      setWord(cell.firstElementChild, store.words.run[status.state], cell);
      setAttribute(cell.firstElementChild, "title", status.reason);
      setField(row, "name", status.run_name);
      setField(row, "rounds", gettext("{done} of {rounds}", { done: status.round ?? 0, rounds: status.rounds }));
    }
    show(row.querySelector("[data-where]"), curve.on_devices);
    for (const [name, write] of Object.entries(WRITE)) {
      const [best, last] = [curve.best[name], curve.last[name]];
      setField(row, `best_${name}`, best ? write(best.value) : "–");
      setField(row, `best_${name}_round`, best ? gettext("round {round}", { round: best.round }) : "");
      setField(row, `last_${name}`, last ? write(last.value) : "–");
    }
  }
}

function paintValues(table, store) {
  const list = table?.querySelector("[data-list]");
  if (!list || !table.closest("details").open) return paintWhenOpened(table, store);
  const curves = [...store.curves.values()];
  const numbers = [...new Set(curves.flatMap((curve) => curve.rounds))].sort((a, b) => b - a).slice(0, ROWS);
  syncList(list, document.getElementById("value-template"), numbers, (number) => number, (row, number) => {
    setText(row.firstElementChild, String(number));
    curves.forEach((curve, place) => {
      const index = curve.rounds.lastIndexOf(number);
      setText(row.children[1 + 2 * place], percent(curve.accuracy[index]));
      setText(row.children[2 + 2 * place], loss(curve.loss[index]));
    });
  });
  return undefined;
}

/** A table that nobody sees is painted when somebody opens it. */
function paintWhenOpened(table, store) {
  const details = table?.closest("details");
  if (!details || details.dataset.waits) return;
  details.dataset.waits = "true";
  details.addEventListener("toggle", () => details.open && paintValues(table, store));
}
