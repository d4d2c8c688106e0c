// What a viewer has chosen stands in the address: a copied address opens the same view, and a reload keeps it.

/** Return a choice of the address, or null. */
export const chosen = (name) => new URLSearchParams(location.search).get(name);

/** Write choices into the address without leaving the page; null or "" takes one out. */
export function choose(choices) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(choices)) {
    if (value === null || value === "") query.delete(name);
    else query.set(name, String(value));
  }
  const text = query.toString();
  history.replaceState(history.state, "", `${location.pathname}${text ? `?${text}` : ""}${location.hash}`);
}
