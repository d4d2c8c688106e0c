// Small hands for the page: they write only what differs, so that nothing repaints, loses focus or moves without need.

const sprite = () => document.getElementById("main-script").dataset.sprite;

export const part = (name) => document.querySelector(`[data-part="${name}"]`);
export const field = (root, name) => root?.querySelector(`[data-field="${name}"]`);

export function setText(element, text) {
  if (element && element.textContent !== text) element.textContent = text;
}

export function setField(root, name, text) {
  setText(field(root, name), text);
}

export function setAttribute(element, name, value) {
  if (element && element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

export function show(element, visible) {
  if (element && element.hidden === visible) element.hidden = !visible;
}

/** Give an element the tone of a word, and no other. */
export function setTone(element, tone) {
  if (!element || element.classList.contains(`tone-${tone}`)) return;
  for (const name of [...element.classList]) if (name.startsWith("tone-")) element.classList.remove(name);
  element.classList.add(`tone-${tone}`);
}

export function setIcon(root, icon) {
  setAttribute(root?.querySelector("use"), "href", `${sprite()}#${icon}`);
}

/** Show a word of the server's tables: text, icon, and tone on `toned`. */
export function setWord(root, word, toned = root, text = word.word) {
  setTone(toned, word.tone);
  setIcon(root, word.icon);
  setText(root?.querySelector("[data-word]") ?? root, text);
}

export function setTime(element, iso, kind) {
  if (!element || element.getAttribute("datetime") === iso) return;
  element.setAttribute("datetime", iso ?? "");
  element.title = iso ?? "";
  kind(element);
}

/** Bring the children of a list in line with items: rows are kept by key, made from a template, and removed. */
export function syncList(list, template, items, keyOf, fill) {
  if (!list || !template) return;
  const rows = new Map([...list.children].map((row) => [row.dataset.key, row]));
  let next = list.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let row = rows.get(key);
    if (row) rows.delete(key);
    else {
      row = template.content.firstElementChild.cloneNode(true);
      row.dataset.key = key;
    }
    fill(row, item);
    if (row === next) next = next.nextElementSibling;
    else move(list, row, next);
  }
  for (const row of rows.values()) row.remove();
}

/** Move a row, and with it the focus, which a browser takes from what is moved. */
export function move(list, row, next) {
  const focused = row.contains(document.activeElement) ? document.activeElement : null;
  list.insertBefore(row, next);
  focused?.focus({ preventScroll: true });
}

/**
 * Write items into the children of a list, one after the other: rows stay where they are and only what they say changes, so
 * that nothing moves however much comes in. For rows of one height.
 */
export function fillList(list, template, items, fill) {
  items.forEach((item, index) => fill(list.children[index] ?? list.appendChild(template.content.firstElementChild.cloneNode(true)), item));
  while (list.children.length > items.length) list.lastElementChild.remove();
}
