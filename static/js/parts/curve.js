// The learning curve: accuracy above loss, one cursor for both, the devices' spread as a band, another run beside it. Its
// data change under a zoom that stays; what the viewer has chosen stands in the address.

import { METRICS, makePlot } from "../curve-plot.js";
import { part, setField, setText, show } from "../dom.js";
import { named, seconds } from "../format.js";
import { bestOf, columns, inOrder, isMeasuredOnDevices, joined, ofSeries, smooth } from "../series.js";
import { gettext } from "../texts.js";
import { choose, chosen } from "../view.js";
import { notify } from "./notices.js";

const NAMES = Object.keys(METRICS);
const EMPTY = { last: [], seconds: [], mean: [], low: [], high: [], notFinite: [] };

export function mount(store) {
  const root = part("curve");
  if (!root || !window.uPlot) return null;
  const curve = new Curve(root, store);
  return { slices: ["rounds"], paint: () => curve.update() };
}

/** What one may choose, and how it stands in the address. */
const CHOICES = {
  x: { read: (text) => (text === "time" ? "time" : "round"), rest: "round" },
  smooth: { read: (text) => Math.min(0.95, Math.max(0, Number(text) || 0)), rest: 0 },
  spread: { read: (text) => text !== "0", rest: true },
  log: { read: (text) => text === "1", rest: false },
  base: { read: (text) => (/^\d{1,9}$/.test(text ?? "") ? Number(text) : null), rest: null },
};
const written = (name, value) => (value === CHOICES[name].rest ? null : value === true ? 1 : value === false ? 0 : value);

class Curve {
  constructor(root, store) {
    Object.assign(this, { root, store, index: null, plots: {}, data: {}, columns: {}, base: null });
    this.view = Object.fromEntries(Object.entries(CHOICES).map(([name, { read }]) => [name, read(chosen(name))]));
    this.zoom = readZoom();
    document.documentElement.addEventListener("shade", () => this.#each((plot) => plot.redraw(false)));
    this.#controls();
    this.#read();
    this.#build();
    this.#keys();
    this.#legends();
    if (this.view.base !== null) this.#fetchBase();
  }

  update() {
    this.#read();
    // At once, as a batch is: after the other parts' changes, a text on a canvas would have all styles worked out first.
    this.#each((plot, name) => plot.batch(() => plot.setData(this.data[name], !this.zoom)));
    this.#legends();
  }

  // ── data ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  #read() {
    const { store, view, base } = this;
    const rounds = inOrder(store.rounds);
    const options = { onDevices: isMeasuredOnDevices(rounds), startedAt: store.run?.started_at, earlier: store.earlier };
    for (const name of NAMES) {
      const own = columns(rounds, name, options);
      const other = base ? ofSeries(base, name) : EMPTY;
      const place = (column) => (view.x === "time" ? column.seconds : column.last);
      const rows = [own.mean, view.smooth ? smooth(own.mean, view.smooth) : [], view.spread ? own.low : [], view.spread ? own.high : [], own.last];
      const [x, ...values] = joined(place(own), rows, place(other), other.mean);
      const [mean, smoothed, low, high, numbers, beside] = values;
      this.columns[name] = { x, mean, low, high, numbers, beside, notFinite: own.notFinite };
      this.data[name] = [x, mean, smoothed, low, high, beside];
    }
    this.marks = this.#marks(rounds);
  }

  /** Where the run was paused, and which rounds failed; each at its place on the axis. */
  #marks(rounds) {
    const { store, view } = this;
    const started = Date.parse(store.run?.started_at ?? "");
    const place = (round, at) => (view.x === "time" ? (Date.parse(at) - started) / 1000 : (round ?? 0));
    const failed = rounds.filter((line) => line.state === "failed").map((line) => ({ x: place(line.number, line.ended_at), text: line.reason || gettext("failed"), tone: "bad" }));
    const paused = store.marks.map((mark) => ({ x: place(mark.round, mark.at), text: mark.text, tone: "plain" }));
    return [...failed, ...paused].filter(({ x }) => Number.isFinite(x)).sort((a, b) => a.x - b.x);
  }

  #marked(name) {
    const { numbers, x, notFinite } = this.columns[name];
    return { marks: this.marks, notFinite: notFinite.map((round) => x[numbers.indexOf(round)]) };
  }

  async #fetchBase() {
    const { base } = this.view;
    this.base = null;
    if (base !== null) {
      const answer = await fetch(`/api/v1/runs/${base}/series/?width=${this.root.clientWidth || 900}`, { credentials: "same-origin" });
      if (this.view.base !== base) return;
      if (answer.ok) this.base = await answer.json();
      else notify({ severity: "warning", title: gettext("The baseline cannot be shown"), detail: gettext("The server answered {status} for run {run}.", { status: answer.status, run: base }) });
    }
    this.update();
  }

  // ── plots ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  #options(name) {
    return { name, axis: this.view.x, log: name === "loss" && this.view.log, marked: () => this.#marked(name) };
  }

  #build() {
    for (const name of NAMES) {
      const target = this.root.querySelector(`[data-plot="${name}"]`);
      this.plots[name]?.destroy();
      const hooks = { setCursor: [(self) => this.#readAt(self.cursor.idx)], setSelect: [(self) => this.#select(self)] };
      const size = () => ({ width: target.clientWidth || 600, height: target.clientHeight });
      this.plots[name] = makePlot(target, this.data[name], { ...this.#options(name), size: size(), hooks });
      this.plots[name].over.addEventListener("dblclick", () => this.#zoomTo(null));
      this.resize ??= new ResizeObserver(() => this.#each((plot, each) => plot.setSize(sizeOf(this.root, each))));
      this.resize.observe(target);
    }
    if (this.zoom) this.#applyZoom();
  }

  #each(act) {
    for (const [name, plot] of Object.entries(this.plots)) act(plot, name);
  }

  #select(plot) {
    if (plot.select.width < 4) return;
    const { left, width } = plot.select;
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.#zoomTo([plot.posToVal(left, "x"), plot.posToVal(left + width, "x")]);
  }

  #zoomTo(range) {
    if (range && range[1] - range[0] < 1) return;
    this.zoom = range;
    choose({ from: range && Math.round(range[0] * 100) / 100, to: range && Math.round(range[1] * 100) / 100 });
    if (range) this.#applyZoom();
    else this.#each((plot, name) => plot.setData(this.data[name], true));
    show(this.root.querySelector("[data-reset]"), Boolean(range));
  }

  #applyZoom() {
    const [min, max] = this.zoom;
    this.#each((plot) => plot.setScale("x", { min, max }));
    show(this.root.querySelector("[data-reset]"), true);
  }

  /** Zoom about the middle by a factor, for those who do not drag. */
  #zoomBy(factor) {
    const { min, max } = this.plots.accuracy.scales.x;
    const [from, to] = [this.data.accuracy[0][0] ?? 0, this.data.accuracy[0].at(-1) ?? 1];
    const half = ((max - min) * factor) / 2;
    const middle = (min + max) / 2;
    const range = [Math.max(from, middle - half), Math.min(to, middle + half)];
    this.#zoomTo(range[0] <= from && range[1] >= to ? null : range);
  }

  // ── choices ───────────────────────────────────────────────────────────────────────────────────────────────────────

  #controls() {
    const form = this.root.querySelector("[data-view]");
    form.classList.remove("unready");
    for (const [name, value] of Object.entries(this.view)) for (const control of form.querySelectorAll(`[name="${name}"]`)) fill(control, value);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", ({ target }) => target.name in CHOICES && this.#choose(target.name, readControl(target)));
    const press = (name, act) => form.querySelector(`[data-${name}]`).addEventListener("click", act);
    press("reset", () => this.#zoomTo(null));
    press("closer", () => this.#zoomBy(0.5));
    press("wider", () => this.#zoomBy(2));
    press("image", () => this.#saveImage());
    this.root.addEventListener("toggle-choice", ({ detail }) => this.#toggle(detail));
  }

  /** A key was pressed that stands for a choice: `log`, or `base` for the last baseline and none in turn. */
  #toggle(name) {
    const form = this.root.querySelector("[data-view]");
    const control = form.querySelector(`[name="${name}"]`);
    if (name === "log") control.checked = !control.checked;
    else control.value = control.value ? "" : (control.options[1]?.value ?? "");
    this.#choose(name, readControl(control));
  }

  #choose(name, value) {
    this.view[name] = CHOICES[name].read(value);
    choose({ [name]: written(name, this.view[name]) });
    if (name === "base") {
      this.#fetchBase();
      return;
    }
    if (name === "x") this.#zoomTo(null);
    this.#read();
    this.#build();
    this.#legends();
  }

  async #saveImage() {
    const { drawImage, save } = await import("../curve-image.js");
    const { run_name: title, run_id: id } = this.store.run;
    const legends = NAMES.map((name) => `${METRICS[name].title} ${this.#lastOf(name)}, ${this.#bestOf(name)}`);
    const canvas = await drawImage(title, legends, (name) => ({ data: this.data[name], options: this.#options(name) }));
    save(canvas, `run-${id}-curve.png`);
  }

  // ── words ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The values that are a round's own, and not the mean of a column of several. */
  #measured(name) {
    const { mean, numbers } = this.columns[name];
    const before = this.store.earlier?.last.at(-1) ?? -1;
    return mean.map((value, index) => (numbers[index] > before ? (value ?? null) : null));
  }

  #lastOf(name) {
    const last = this.#measured(name).findLast((value) => value !== null) ?? this.store.earlierFacts?.last[name]?.value;
    return METRICS[name].write(last);
  }

  #bestOf(name) {
    const best = bestOf(this.columns[name].numbers, this.#measured(name), METRICS[name].better, this.store.earlierFacts?.best[name]);
    return best ? gettext("best {value} in round {round}", { value: METRICS[name].write(best.value), round: best.round }) : gettext("nothing measured yet");
  }

  #legends() {
    this.root.dataset.points = String(this.columns.accuracy.mean.filter((value) => typeof value === "number").length);
    for (const name of NAMES) {
      setField(this.root, name, this.#lastOf(name));
      setField(this.root, `best_${name}`, this.#bestOf(name));
      const beside = this.base && ofSeries(this.base, name).mean.findLast((value) => value !== null);
      setField(this.root, `base_${name}`, this.base ? `${this.base.label} ${METRICS[name].write(beside) || gettext("not measured")}` : "");
      show(this.root.querySelector(`[data-base="${name}"]`), Boolean(this.base));
    }
  }

  #readAt(index) {
    if (index === this.index) return;
    this.index = index;
    const reading = this.root.querySelector('[data-field="reading"]');
    this.rest ??= [...reading.childNodes];
    if (index === null || index === undefined || this.data.accuracy[0][index] === undefined) reading.replaceChildren(...this.rest);
    else setText(reading, this.#sentence(index));
  }

  #sentence(index) {
    const { x, numbers } = this.columns.accuracy;
    const round = numbers[index];
    const first = this.#firstOf(round);
    let values = NAMES.map((name) => this.#wordsAt(name, index)).join(", ");
    if (first < round) values = gettext("{values} (rounds {first} to {round})", { values, first, round });
    if (this.view.x !== "time") return gettext("Round {round}: {values}", { round: x[index], values });
    const time = seconds(x[index]);
    if (first < round || round === undefined) return gettext("After {time}: {values}", { time, values });
    return gettext("After {time}, round {round}: {values}", { time, round, values });
  }

  /** Return the first round of the column that ends with a round. */
  #firstOf(round) {
    const { earlier } = this.store;
    return earlier?.first[earlier.last.indexOf(round)] ?? round;
  }

  #wordsAt(name, index) {
    const { mean, low, high, beside, numbers, notFinite } = this.columns[name];
    const { write } = METRICS[name];
    const value = named(name, notFinite.includes(numbers[index]) ? "NaN" : write(mean[index]) || gettext("not measured"));
    const places = { value, low: write(low[index]), high: write(high[index]) };
    const spread = () => (this.#firstOf(numbers[index]) < numbers[index] ? gettext("{value} ({low} to {high})", places) : gettext("{value} (devices {low} to {high})", places));
    const own = typeof low[index] === "number" ? spread() : value;
    return typeof beside[index] === "number" ? `${own}, ${this.base.label} ${write(beside[index])}` : own;
  }

  #keys() {
    const target = this.root.querySelector('[data-plot="accuracy"]');
    const reading = this.root.querySelector('[data-field="reading"]');
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    target.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      const places = this.data.accuracy[0];
      if (step === undefined || !places.length) return;
      event.preventDefault();
      reading.setAttribute("aria-live", "polite");
      const next = Math.min(places.length - 1, Math.max(0, (this.index ?? (step > 0 ? -1 : places.length)) + step));
      const plot = this.plots.accuracy;
      plot.setCursor({ left: plot.valToPos(places[next], "x"), top: 1 });
    });
    target.addEventListener("blur", () => {
      reading.setAttribute("aria-live", "off");
      this.#each((plot) => plot.setCursor({ left: -10, top: -10 }));
    });
  }
}

function sizeOf(root, name) {
  const target = root.querySelector(`[data-plot="${name}"]`);
  return { width: target.clientWidth, height: target.clientHeight };
}

function readZoom() {
  const [from, to] = [chosen("from"), chosen("to")].map((text) => (text === null ? NaN : Number(text)));
  return to - from >= 1 ? [from, to] : null;
}

function fill(control, value) {
  if (control.type === "checkbox") control.checked = value;
  else if (control.type === "radio") control.checked = control.value === value;
  else control.value = value ?? "";
}

const readControl = (control) => (control.type === "checkbox" ? (control.checked ? "1" : "0") : control.value);
