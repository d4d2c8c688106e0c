// Many devices at a glance: a small square for each, in the colour of its state. A word for each is in its title, and the
// whole says how many there are of each; a table beside it is its equal.

import { setAttribute } from "./dom.js";
import { ngettext, within } from "./texts.js";

const COLUMNS = 24;
const STEP = 14;
const SIDE = 11;
const SPACE = "http://www.w3.org/2000/svg";

/**
 * Draw the squares into an SVG; none hides it.
 * @param {SVGElement} svg
 * @param {{word: string, tone: string, name: string}[]} cells
 */
export function paintMosaic(svg, cells) {
  if (!svg) return;
  svg.toggleAttribute("hidden", !cells.length);
  const rows = Math.ceil(cells.length / COLUMNS);
  setAttribute(svg, "viewBox", `0 0 ${COLUMNS * STEP} ${Math.max(rows, 1) * STEP}`);
  setAttribute(svg, "aria-label", summaryOf(cells));
  cells.forEach((cell, index) => {
    const rect = svg.children[index] ?? svg.appendChild(makeCell(index));
    setAttribute(rect, "class", `tone-${cell.tone}`);
    const text = `${cell.name}: ${cell.word}`;
    if (rect.firstChild.textContent !== text) rect.firstChild.textContent = text;
  });
  while (svg.children.length > cells.length) svg.lastElementChild.remove();
}

/** Say how many there are of each state: "120 devices: 80 received, 40 training". */
export function summaryOf(cells) {
  const counts = new Map();
  for (const { word } of cells) counts.set(word, (counts.get(word) ?? 0) + 1);
  const parts = [...counts].map(([word, count]) => `${count} ${within(word)}`);
  return ngettext("{count} device: {states}", "{count} devices: {states}", cells.length, { states: parts.join(", ") });
}

function makeCell(index) {
  const rect = document.createElementNS(SPACE, "rect");
  const place = { x: (index % COLUMNS) * STEP, y: Math.floor(index / COLUMNS) * STEP, width: SIDE, height: SIDE, rx: 2 };
  for (const [name, value] of Object.entries(place)) rect.setAttribute(name, value);
  rect.append(document.createElementNS(SPACE, "title"));
  return rect;
}
