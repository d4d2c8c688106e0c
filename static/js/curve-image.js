// Both plots of a learning curve as one image of twice the size, with title and legend, for papers and slides.

import { METRICS, colour, makePlot } from "./curve-plot.js";

const SCALE = 2;
const WIDTH = 900;
const HEIGHTS = { accuracy: 300, loss: 190 };
const HEAD = 46;
const LEGEND = 26;

/**
 * Draw the curve into a canvas.
 * @param {string} title
 * @param {string[]} legends a line for each metric, in the order of METRICS
 * @param {(name: string) => {data: Array, options: object}} plotOf what `makePlot` takes
 */
export async function drawImage(title, legends, plotOf) {
  const names = Object.keys(METRICS);
  const canvas = document.createElement("canvas");
  canvas.width = WIDTH * SCALE;
  canvas.height = (HEAD + names.reduce((sum, name) => sum + LEGEND + HEIGHTS[name], 0)) * SCALE;
  const ctx = canvas.getContext("2d");
  ctx.fillStyle = colour("--surface");
  ctx.fillRect(0, 0, canvas.width, canvas.height);
  ctx.fillStyle = colour("--ink");
  ctx.font = `600 ${17 * SCALE}px system-ui, sans-serif`;
  ctx.fillText(title, 20 * SCALE, 30 * SCALE);
  let top = HEAD;
  for (const [index, name] of names.entries()) {
    ctx.fillStyle = colour(METRICS[name].colour);
    ctx.fillRect(20 * SCALE, (top + 9) * SCALE, 14 * SCALE, 3 * SCALE);
    ctx.fillStyle = colour("--ink-soft");
    ctx.font = `${13 * SCALE}px system-ui, sans-serif`;
    ctx.fillText(legends[index], 42 * SCALE, (top + 15) * SCALE);
    ctx.drawImage(await drawPlot(name, plotOf(name)), 0, (top + LEGEND) * SCALE, WIDTH * SCALE, HEIGHTS[name] * SCALE);
    top += LEGEND + HEIGHTS[name];
  }
  return canvas;
}

/** Let the browser save a canvas as a file. */
export function save(canvas, name) {
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
}

async function drawPlot(name, { data, options }) {
  const stage = document.createElement("div");
  const plot = makePlot(stage, data, { ...options, scale: SCALE, size: { width: WIDTH * SCALE, height: HEIGHTS[name] * SCALE } });
  const { canvas } = plot.ctx;
  // It draws once the script that made it is through.
  await new Promise(requestAnimationFrame);
  plot.destroy();
  return canvas;
}
