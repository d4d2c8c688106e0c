// Opens the palette; what it can do is fetched when it is first asked for.

import { part } from "../dom.js";

export function mount() {
  const dialog = part("palette");
  if (!dialog) return null;
  let palette = null;
  const open = async () => {
    const { Palette } = await import("../palette.js");
    palette ??= new Palette(dialog);
    palette.open();
  };
  for (const opener of document.querySelectorAll("[data-open-palette]")) {
    opener.hidden = false;
    opener.addEventListener("click", open);
  }
  return {};
}
