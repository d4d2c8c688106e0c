// Sets light or dark before the first paint; a plain script in the head, since modules run too late for that.
(() => {
  const root = document.documentElement;
  const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
  const read = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null; // storage is barred: the system's wish decides
    }
  };
  const apply = () => {
    const chosen = read();
    if (chosen) root.dataset.theme = chosen;
    root.dataset.shade = chosen ?? (systemIsDark.matches ? "dark" : "light");
  };
  apply();
  systemIsDark.addEventListener("change", () => {
    apply();
    root.dispatchEvent(new Event("shade"));
  });
  window.addEventListener("storage", apply);
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector("[data-theme-switch]");
    if (!button) return;
    button.hidden = false;
    button.addEventListener("click", () => {
      const shade = root.dataset.shade === "dark" ? "light" : "dark";
      root.dataset.theme = root.dataset.shade = shade;
      try {
        localStorage.setItem("theme", shade);
      } catch {
        // It holds for this page then.
      }
      root.dispatchEvent(new Event("shade"));
    });
  });
})();
