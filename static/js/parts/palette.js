// Opens the palette; what it can do is fetched when it is first asked for.

import { part } from "../dom.js";

export function mount(store) {
  const dialog = part("palette");
  if (!dialog) return null;
  const input = dialog.querySelector("input");
  let palette = null;
  const open = async () => {
    input.value = "";
    dialog.showModal(); // at once: what is typed meanwhile is kept
    const { Palette } = await import("../palette.js");
    palette ??= new Palette(dialog, store.words);
    palette.search();
  };
  for (const opener of document.querySelectorAll("[data-open-palette]")) {
    opener.hidden = false;
    opener.addEventListener("click", open);
  }
  return {};
}
