"""What is measured of any page: what axe finds, what is too wide, what is cut off."""

from pathlib import Path

import axe_playwright_python

AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa", "best-practice"]
OF_COLOUR = ["color-contrast", "link-in-text-block"]
"""The rules whose answer depends on the theme."""
SIZES = {"desktop": {"width": 1440, "height": 900}, "phone": {"width": 390, "height": 844}}
ZOOMED = {"width": 720, "height": 450}
"""What a window of 1440 by 900 holds at 200 %."""


def violations(page, rules=RULES):
    """Return what axe finds on a page, a line for each element; `rules` are tags, or names of rules."""
    if not page.evaluate("Boolean(window.axe)"):
        page.evaluate(AXE.read_text())
    found = page.evaluate("(rules) => axe.run(document, { runOnly: rules }).then((done) => done.violations)", rules)
    return [f"{each['id']}: {node['html']} {node['failureSummary']}" for each in found for node in each["nodes"]]


def too_wide_at(page, width):
    """Return what makes a page wider than a window of this width; nothing where it fits."""
    page.set_viewport_size({"width": width, "height": 800})
    for _ in range(20):  # curves follow the window a moment later
        if not (found := page.evaluate(_TOO_WIDE, width)):
            break
        page.wait_for_timeout(100)
    return found


_TOO_WIDE = """(width) => document.documentElement.scrollWidth <= width ? [] : [...document.querySelectorAll('body *')]
  .filter((e) => e.getBoundingClientRect().right > width + 1 && !e.closest('.scroll, .unseen'))
  .map((e) => e.outerHTML.slice(0, 150))"""


def cut_when_zoomed(page):
    """Return what a window at 200 % cuts off: texts beyond what hides them, dialogs beyond the window, a whole page."""
    page.set_viewport_size(ZOOMED)
    for _ in range(20):
        if page.evaluate("document.documentElement.scrollWidth") <= ZOOMED["width"]:
            break
        page.wait_for_timeout(100)
    return page.evaluate(_CUT)


# A text that ends in an ellipsis is cut on purpose: what is left out stands in its title, or elsewhere on the page.
_CUT = """() => {
  const found = [];
  const { scrollWidth } = document.documentElement;
  if (scrollWidth > innerWidth) found.push(`the page is ${scrollWidth} px wide`);
  for (const dialog of document.querySelectorAll('dialog[open]')) {
    const { top, bottom } = dialog.getBoundingClientRect();
    if (top < 0 || bottom > innerHeight) found.push(`the dialog reaches from ${top} to ${bottom}`);
  }
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode;
    const holder = text.parentElement;
    if (!text.data.trim() || holder.closest('.unseen, .skip, progress')) continue;
    if (!holder.checkVisibility({ visibilityProperty: true })) continue;
    const range = document.createRange();
    range.selectNodeContents(text);
    const box = range.getBoundingClientRect();
    for (let around = holder; around; around = around.parentElement) {
      const style = getComputedStyle(around);
      if (style.textOverflow === 'ellipsis') break;
      if (/auto|scroll/.test(style.overflowX + style.overflowY)) break;
      if (style.overflow === 'visible') continue;
      const edge = around.getBoundingClientRect();
      const beside = box.right > edge.right + 1 || box.left < edge.left - 1;
      if (beside || box.bottom > edge.bottom + 1 || box.top < edge.top - 1) {
        found.push(`“${text.data.trim().slice(0, 60)}” in ${around.outerHTML.slice(0, 100)}`);
      }
    }
  }
  return found;
}"""
