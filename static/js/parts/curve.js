// The learning curve: accuracy above loss, one cursor for both, the devices' spread as a band. Its data change under a
// zoom that stays; where nothing was measured there is a gap.

import { part, setField, setText, show } from "../dom.js";
import { loss, percent } from "../format.js";
import { bestOf, columns, inOrder, isMeasuredOnDevices } from "../series.js";

const METRICS = {
  accuracy: { write: percent, better: (a, b) => a > b, colour: "--curve-accuracy" },
  loss: { write: loss, better: (a, b) => a < b, colour: "--curve-loss" },
};

// A custom property with light-dark() in it is only resolved where a colour is asked for.
const probe = document.createElement("span");
probe.hidden = true;

function colour(name, alpha = 1) {
  probe.style.color = `var(${name})`;
  const resolved = getComputedStyle(probe).color;
  return alpha === 1 ? resolved : resolved.replace(/^rgb\((.*)\)$/, `rgba($1, ${alpha})`);
}

export function mount(store) {
  const root = part("curve");
  if (!root || !window.uPlot) return null;
  root.append(probe);
  const chart = new Curve(root, store);
  return { slices: ["rounds"], paint: () => chart.update() };
}

class Curve {
  constructor(root, store) {
    Object.assign(this, { root, store, zoomed: false, index: null, plots: {}, data: {} });
    this.spread = root.querySelector("[data-spread]");
    this.spread.addEventListener("change", () => this.update());
    root.querySelector("[data-reset]").addEventListener("click", () => this.#reset());
    document.documentElement.addEventListener("shade", () => this.#each((plot) => plot.redraw(false)));
    this.#read();
    for (const name of Object.keys(METRICS)) this.plots[name] = this.#plot(name);
    this.#keys();
    this.#legends();
  }

  update() {
    this.#read();
    for (const [name, plot] of Object.entries(this.plots)) {
      const range = this.zoomed ? { ...plot.scales.x } : null;
      plot.setData(this.data[name], true);
      if (range) plot.setScale("x", { min: range.min, max: range.max });
    }
    this.#legends();
  }

  #read() {
    const rounds = inOrder(this.store.rounds);
    this.onDevices = isMeasuredOnDevices(rounds);
    for (const name of Object.keys(METRICS)) {
      this.data[name] = columns(rounds, name, { onDevices: this.onDevices, spread: this.spread.checked });
    }
  }

  #plot(name) {
    const target = this.root.querySelector(`[data-plot="${name}"]`);
    const { colour: token, write } = METRICS[name];
    const line = () => colour(token);
    const axis = { stroke: () => colour("--ink-faint"), grid: { stroke: () => colour("--grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const edge = { stroke: "transparent", points: { show: false }, width: 0 };
    const values = name === "accuracy" ? (_, splits) => splits.map((value) => `${Math.round(value * 1000) / 10} %`) : (_, splits) => splits.map((value) => String(Math.round(value * 1000) / 1000));
    const plot = new window.uPlot(
      {
        width: target.clientWidth || 600,
        height: target.clientHeight,
        legend: { show: false },
        padding: [10, 14, 0, 0],
        cursor: { y: false, sync: { key: "curve" }, drag: { x: true, y: false, setScale: false }, points: { size: 9, fill: line, stroke: line } },
        scales: { x: { time: false, range: (_, min, max) => [min ?? 0, Math.max(max ?? 1, (min ?? 0) + 1)] }, y: { range: yRange(name) } },
        axes: [{ ...axis, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000], size: 28 }, { ...axis, values, size: 58 }],
        series: [
          {},
          { label: name, stroke: line, width: 2, points: { show: (self) => self.data[0].length < 80, size: 5, stroke: line, fill: () => colour("--surface") }, value: (_, value) => write(value) },
          { ...edge, label: "p10" },
          { ...edge, label: "p90" },
        ],
        bands: [{ series: [3, 2], fill: () => colour(token, 0.14) }],
        hooks: {
          setCursor: [(self) => this.#read_at(self.cursor.idx)],
          setSelect: [(self) => this.#zoom(self)],
        },
      },
      this.data[name],
      target,
    );
    plot.over.addEventListener("dblclick", () => this.#reset());
    new ResizeObserver(() => plot.setSize({ width: target.clientWidth, height: target.clientHeight })).observe(target);
    return plot;
  }

  #zoom(plot) {
    if (plot.select.width < 4) return;
    const min = plot.posToVal(plot.select.left, "x");
    const max = plot.posToVal(plot.select.left + plot.select.width, "x");
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    if (max - min < 1) return;
    this.zoomed = true;
    this.#each((other) => other.setScale("x", { min, max }));
    show(this.root.querySelector("[data-reset]"), true);
  }

  #reset() {
    this.zoomed = false;
    show(this.root.querySelector("[data-reset]"), false);
    this.#each((plot, name) => plot.setData(this.data[name], true));
  }

  #each(act) {
    for (const [name, plot] of Object.entries(this.plots)) act(plot, name);
  }

  #legends() {
    this.root.dataset.points = String(this.data.accuracy[1].filter((value) => value !== null).length);
    for (const [name, { write, better }] of Object.entries(METRICS)) {
      const [x, values] = this.data[name];
      const last = values.findLastIndex((value) => value !== null);
      setField(this.root, name, last < 0 ? "" : write(values[last]));
      const best = bestOf([x, values], better);
      setField(this.root, `best_${name}`, best ? `best ${write(best.value)} in round ${best.round}` : "nothing measured yet");
    }
  }

  #read_at(index) {
    if (index === this.index) return;
    this.index = index;
    const reading = this.root.querySelector('[data-field="reading"]');
    this.rest ??= [...reading.childNodes];
    if (index === null || index === undefined || this.data.accuracy[0][index] === undefined) reading.replaceChildren(...this.rest);
    else setText(reading, this.#sentence(index));
  }

  #sentence(index) {
    const parts = Object.entries(METRICS).map(([name, { write }]) => {
      const [, values, low, high] = this.data[name];
      const value = values[index] === null ? "not measured" : write(values[index]);
      const spread = low[index] === null ? "" : ` (devices ${write(low[index])} to ${write(high[index])})`;
      return `${name} ${value}${spread}`;
    });
    return `Round ${this.data.accuracy[0][index]}: ${parts.join(", ")}`;
  }

  #keys() {
    const target = this.root.querySelector('[data-plot="accuracy"]');
    const reading = this.root.querySelector('[data-field="reading"]');
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    target.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      const rounds = this.data.accuracy[0];
      if (step === undefined || !rounds.length) return;
      event.preventDefault();
      reading.setAttribute("aria-live", "polite");
      const next = Math.min(rounds.length - 1, Math.max(0, (this.index ?? (step > 0 ? -1 : rounds.length)) + step));
      const plot = this.plots.accuracy;
      plot.setCursor({ left: plot.valToPos(rounds[next], "x"), top: 1 });
    });
    target.addEventListener("blur", () => {
      reading.setAttribute("aria-live", "off");
      this.#each((plot) => plot.setCursor({ left: -10, top: -10 }));
    });
  }
}

function yRange(name) {
  return (_, min, max) => {
    if (min === null || max === null) return [0, 1];
    const room = Math.max((max - min) * 0.08, 0.01);
    return [Math.max(0, min - room), name === "accuracy" ? Math.min(1, max + room) : max + room];
  };
}
