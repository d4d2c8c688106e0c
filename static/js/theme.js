// Sets light or dark, and whether the navigation is folded, before the first paint; a plain script in the head, since
// modules run too late for that.
(() => {
  const root = document.documentElement;
  const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
  const read = (name) => {
    try {
      return localStorage.getItem(name);
    } catch {
      return null; // storage is barred: the system's wish decides
    }
  };
  const write = (name, value) => {
    try {
      localStorage.setItem(name, value);
    } catch {
      // It holds for this page then.
    }
  };
  const apply = () => {
    const chosen = read("theme");
    if (chosen) root.dataset.theme = chosen;
    root.dataset.shade = chosen ?? (systemIsDark.matches ? "dark" : "light");
  };
  apply();
  root.classList.toggle("folded", read("side") === "folded");
  const follow = () => {
    const before = root.dataset.shade;
    apply();
    if (root.dataset.shade !== before) root.dispatchEvent(new Event("shade"));
  };
  systemIsDark.addEventListener("change", follow);
  // Paper has colours of its own, in which canvases are drawn anew.
  matchMedia("print").addEventListener("change", () => root.dispatchEvent(new Event("shade")));
  window.addEventListener("storage", follow);
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector("[data-theme-switch]");
    if (!button) return;
    button.hidden = false;
    button.addEventListener("click", () => {
      const shade = root.dataset.shade === "dark" ? "light" : "dark";
      root.dataset.theme = root.dataset.shade = shade;
      write("theme", shade);
      root.dispatchEvent(new Event("shade"));
    });
    const fold = document.querySelector("[data-fold-side]");
    if (!fold) return;
    const tell = () => fold.setAttribute("aria-expanded", String(!root.classList.contains("folded")));
    fold.hidden = false;
    tell();
    fold.addEventListener("click", () => {
      write("side", root.classList.toggle("folded") ? "folded" : "open");
      tell();
    });
  });
})();
