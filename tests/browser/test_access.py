"""Every page: light and dark, on desk and phone, at 200 %, in the system's colours, at rest, on paper, by the keyboard.

The states of a run's own page are in test_states.py.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.browser.conftest import PATIENCE_MS, Page, World
from tests.browser.measures import OF_COLOUR, SIZES, ZOOMED, cut_when_zoomed, too_wide_at, violations

FILL = """
import json
from django.utils import timezone
from tests.browser.whole_server import fill
print(json.dumps(fill(timezone.now())))
"""
NOTHING_EXPIRES = {"QFLARE_LEASE_SECONDS": "86400"}


# ── what one may find on a page ───────────────────────────────────────────────────────────────────────────────────────


def _open_all(page):
    page.evaluate("document.querySelectorAll('main details, .more, .switcher').forEach((each) => (each.open = true))")


def _ask_to_stop(page):
    page.click("a[data-command=stop]")
    page.wait_for_selector("#stop-dialog[open]")


def _look_for_runs(page):
    page.keyboard.press("/")
    page.keyboard.type("run")
    page.wait_for_selector("[role=option]:has-text('a finished run')")


def _ask_for_keys(page):
    page.keyboard.press("?")
    page.wait_for_selector("[data-part=keys][open]")


def _issue_a_token(page):
    page.fill("[name=label]", "clinic-a")
    page.click("[data-form=token] [type=submit]")
    page.wait_for_selector("#enroll-command")
    _open_all(page)


def _send_a_wrong_run(page):
    page.evaluate("document.getElementById('new-run').noValidate = true")
    page.fill("[name=rounds]", "0")
    page.click("main [type=submit] >> text=Create the run")
    page.wait_for_selector("#new-run .error")


def _wait_for_frames(page):
    page.wait_for_selector(".frame >> text=welcome")
    _open_all(page)


@dataclass(frozen=True)
class View:
    """A page as somebody finds it, after what they have done there."""

    path: str
    who: str = "admin"
    act: Callable | None = None

    @property
    def name(self):
        return " ".join([self.path, f"as {self.who}", *([self.act.__name__] if self.act else [])])


VIEWS = [
    View("/", act=_open_all),
    View("/runs/"),
    View("/runs/?state=completed&sort=-best&run={finished}&run={slower}"),
    View("/runs/?text=nothing"),
    View("/compare/"),
    View("/compare/?run={finished}&run={slower}&run={live}&run=99&all=1", act=_open_all),
    View("/compare/?run={finished}&x=time&metric=loss"),
    View("/runs/new/", act=_open_all),
    View("/runs/new/?from={finished}", act=_send_a_wrong_run),
    View("/runs/{finished}/edit/"),
    View("/runs/{live}/stop/"),
    View("/runs/{live}/", act=_ask_to_stop),
    View("/runs/{live}/", act=_look_for_runs),
    View("/runs/{live}/", act=_ask_for_keys),
    View("/runs/{finished}/rounds/"),
    View("/runs/{finished}/rounds/2/"),
    View("/runs/{live}/devices/"),
    View("/runs/{finished}/config/"),
    View("/runs/{finished}/models/"),
    View("/runs/{finished}/events/?device=all", act=_open_all),
    View("/devices/", act=_open_all),
    View("/devices/?show=attention&q=c"),
    View("/devices/{clinic}/", act=_open_all),
    View("/devices/enrol/", act=_issue_a_token),
    View("/events/?raw=1", act=_open_all),
    View("/events/?severity=errors&q=odd&at=system-1"),
    View("/events/?q=nothing+like+this"),
    View("/audit/"),
    View("/audit/?subject=nothing"),
    View("/health/"),
    View("/inspector/", act=_wait_for_frames),
    View("/docs/"),
    View("/docs/deployment/"),
    View("/docs/asyncapi/"),
    View("/login/?next=/audit/"),
    View("/nothing/"),
    View("/audit/", who="viewer"),
]
WALL = [
    View("/", who="nobody"),
    View("/runs/", who="nobody"),
    View("/devices/", who="nobody"),
    View("/devices/{clinic}/", who="nobody"),
    View("/events/", who="nobody"),
    View("/health/", who="nobody"),
    View("/sign-in/", who="nobody"),
    View("/nothing/", who="nobody"),
]
"""What everybody sees where the dashboard is public."""


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A public server with something of everything on it, and the ids of some of that."""
    made = World(tmp_path_factory.mktemp("access"), environment={"QFLARE_PUBLIC_DASHBOARD": "1", **NOTHING_EXPIRES})
    made.codes = made.prepare()["codes"]
    # While no coordinator is there to go on with the runs.
    made.server.stop()
    made.ids = json.loads(made.server.manage("shell", "-v0", "-c", FILL).strip().splitlines()[-1])
    made.server.start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def sessions(house, chromium):
    """What a browser keeps of each person who signed in."""

    def state_of(role):
        context = chromium.new_context()
        page = context.new_page()
        page.goto(f"{house.url}/sign-in/#code={house.codes[role]}")
        page.wait_for_url(f"{house.url}/")
        state = context.storage_state()
        context.close()
        return state

    return {"nobody": None, **{role: state_of(role) for role in ("admin", "operator", "viewer")}}


@pytest.fixture(scope="module")
def open_view(house, sessions, chromium):
    """Open a view as its person, live where it can be; one context for each person and kind of window."""
    contexts = {}

    def open_one(view, **options):
        key = json.dumps([view.who, options], sort_keys=True)
        if key not in contexts:
            contexts[key] = chromium.new_context(
                **{"viewport": SIZES["desktop"], "storage_state": sessions[view.who], **options}
            )
            contexts[key].set_default_timeout(PATIENCE_MS)
        page = contexts[key].new_page()
        page.goto(house.url + view.path.format(**house.ids))
        if page.query_selector("[data-part=pill]"):
            page.wait_for_selector('[data-part=pill][data-state="live"]')
        if view.act:
            view.act(page)
        return page

    yield open_one
    for context in contexts.values():
        context.close()


# ── light and dark, desk and phone, 200 % ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module", params=[*VIEWS, *WALL], ids=lambda view: view.name)
def seen(request, open_view):
    """What is wrong with a view, of each kind; it is opened once for all of that."""
    page = open_view(request.param, reduced_motion="reduce")
    found = {"broken": {}}
    # What does not depend on the theme is asked once for each size.
    for size, scheme, rules in (
        ("desktop", "light", None),
        ("desktop", "dark", OF_COLOUR),
        ("phone", "dark", None),
        ("phone", "light", OF_COLOUR),
    ):
        page.set_viewport_size(SIZES[size])
        page.emulate_media(color_scheme=scheme)
        if lines := violations(page, rules) if rules else violations(page):
            found["broken"][f"{scheme}, {size}"] = lines
    found["too wide"] = too_wide_at(page, 320)
    found["cut"] = cut_when_zoomed(page)
    page.close()
    return found


def test_no_page_keeps_anybody_out_light_or_dark_on_desk_or_phone(seen):
    assert seen["broken"] == {}


def test_no_page_is_wider_than_a_narrow_phone(seen):
    assert not seen["too wide"]


def test_at_200_per_cent_no_page_cuts_anything_off(seen):
    assert not seen["cut"]


def test_what_is_measured_finds_what_is_wrong(open_view):
    page = open_view(View("/runs/"))
    page.evaluate(_SPOIL)

    rules = {line.partition(":")[0] for line in violations(page)}
    cut = cut_when_zoomed(page)

    assert rules == {"color-contrast", "target-size"}
    assert any("“cut off”" in line for line in cut)
    assert any("px wide" in line for line in cut)
    assert too_wide_at(page, 320) != []
    page.close()


_SPOIL = """() => {
  const add = (name, text, styles) => {
    const made = document.createElement(name);
    made.textContent = text;
    Object.assign(made.style, styles);
    document.querySelector('main').append(made);
  };
  const small = { width: '12px', height: '12px', padding: '0', border: '0', font: '8px sans-serif' };
  add('button', 'a', small);
  add('button', 'b', small);
  add('p', 'pale', { color: '#eee', background: '#fff' });
  add('p', 'cut off', { width: '8px', height: '8px', overflow: 'hidden', background: '#fff', color: '#000' });
  add('p', 'wide', { width: '800px' });
}"""


def test_what_is_focused_is_never_hidden_by_the_header_or_the_bar_below(open_view):
    covered = {}
    for path in ("/runs/{live}/", "/devices/", "/runs/new/"):
        page = open_view(View(path), viewport=ZOOMED)
        stops = page.evaluate(_STOPS)
        for key in ("Tab", "Shift+Tab"):
            for _ in range(stops):
                page.keyboard.press(key)
                if hidden := page.evaluate(_HIDDEN_FOCUS):
                    covered.setdefault(f"{path} {key}", []).append(hidden)
        assert stops > 30
        page.close()

    assert covered == {}


_STOPS = """() => {
  const kinds = 'a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex="0"]';
  return [...document.querySelectorAll(kinds)].filter((e) => e.checkVisibility({ visibilityProperty: true })).length;
}"""
_HIDDEN_FOCUS = """() => {
  const focused = document.activeElement;
  if (focused === document.body || focused.closest('.top, .tabbar, .skip')) return '';
  const drawn = focused.matches('.segments input') ? focused.nextElementSibling : focused;
  const { top, bottom, height } = drawn.getBoundingClientRect();
  const from = document.querySelector('.top').getBoundingClientRect().bottom;
  const to = document.querySelector('.tabbar').getBoundingClientRect().top;
  const shown = Math.min(bottom, to) - Math.max(top, from);
  return shown >= Math.min(height, 20) - 1 ? '' : `${drawn.outerHTML.slice(0, 120)} from ${top} to ${bottom}`;
}"""


# ── the system's colours ──────────────────────────────────────────────────────────────────────────────────────────────

COLOURFUL = [
    View("/runs/{live}/"),
    View("/runs/?run={finished}"),
    View("/runs/{finished}/devices/"),
    View("/compare/?run={finished}&run={slower}"),
    View("/devices/"),
    View("/devices/{clinic}/"),
    View("/runs/{live}/", act=_look_for_runs),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_the_systems_colours_nothing_that_is_told_by_a_colour_is_lost(open_view, scheme):
    lost, checked = {}, set()
    for view in COLOURFUL:
        page = open_view(view, forced_colors="active", color_scheme=scheme)
        found = page.evaluate(_LOST)
        checked |= set(found["checked"])
        if found["lost"]:
            lost[view.name] = found["lost"]
        page.close()

    assert lost == {}
    assert checked == {"shapes", "cells", "lines", "grounds", "edges", "chosen"}


# Shapes and small grounds keep their colours; larger grounds get an edge; what is chosen has the system's own ground.
_LOST = """() => {
  const probe = document.body.appendChild(document.createElement('span'));
  probe.style.color = 'Canvas';
  const canvas = getComputedStyle(probe).color;
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((each) => {
      const share = Number(each) / 255;
      return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const stands = (colour) => {
    const [low, high] = [light(colour), light(canvas)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05) >= 3;
  };
  const isSolid = (e, style) => style.borderStyle === 'solid' && parseFloat(style.borderWidth) >= 1;
  const kinds = {
    shapes: [
      ['.ribbon path', 'svg.mosaic rect', '.square', '.strip rect:not(.unknown)', '.quorum-bar .fill'],
      (e, { fill, stroke }) => stands(fill === 'none' ? stroke : fill),
    ],
    cells: [['.map-cells > path:not(.none)'], (e, { fill }) => fill.startsWith('url') || stands(fill)],
    lines: [['.small-chart polyline', '.legend .swatch line'], (e, { stroke }) => stands(stroke)],
    grounds: [
      ['.dot', '.mark:not(.dashed)', '.kinds .swatch:not(.unknown, .tone-off > *)'],
      (e, style) => stands(style.backgroundColor),
    ],
    edges: [['.chip', '.tag'], (e, style) => isSolid(e, style) && stands(style.borderColor)],
    chosen: [
      [':is(.links, .tabs, .segments) [aria-current]', '.segments :checked + span', '[aria-selected=true]'],
      (e, style) => stands(style.backgroundColor),
    ],
  };
  const lost = [];
  const checked = [];
  for (const [kind, [selectors, isKept]] of Object.entries(kinds)) {
    const there = [...document.querySelectorAll(selectors.join())].filter((e) => e.checkVisibility());
    if (there.length) checked.push(kind);
    for (const e of there) if (!isKept(e, getComputedStyle(e))) lost.push(`${kind}: ${e.outerHTML.slice(0, 120)}`);
  }
  return { lost, checked };
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_the_systems_colours_curves_keep_theirs_and_the_focus_is_seen(open_view, scheme):
    page = open_view(View("/runs/{live}/"), forced_colors="active", color_scheme=scheme)

    unseen = []
    for _ in range(page.evaluate(_STOPS)):
        page.keyboard.press("Tab")
        if at := page.evaluate(_UNSEEN_FOCUS):
            unseen.append(at)

    assert wait_for(page, f"({_DRAWN})('loss', '{CURVES[scheme]['loss']}') > 50")
    assert unseen == []
    page.close()


CURVES = {
    "light": {"accuracy": "31,111,224", "loss": "212,84,27"},
    "dark": {"accuracy": "94,163,255", "loss": "255,146,87"},
}
"""The curves' colours of static/css/tokens.css."""
_DRAWN = """(name, colour) => {
  const canvas = document.querySelector(`[data-plot=${name}] canvas`);
  if (!canvas) return 0;
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let i = 0; i < data.length; i += 4) if (data.slice(i, i + 3).join() === colour && data[i + 3] > 200) count += 1;
  return count;
}"""
_UNSEEN_FOCUS = """() => {
  const focused = document.activeElement;
  const drawn = focused.matches('.segments input') ? focused.nextElementSibling : focused;
  const { outlineStyle, outlineWidth } = getComputedStyle(drawn);
  const isSeen = focused === document.body || (outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2);
  return isSeen ? '' : drawn.outerHTML.slice(0, 120);
}"""


def wait_for(page, expression):
    """Wait until an expression of a page is true, and return its value."""
    return Page(page, "").wait_for(expression)


# ── at rest ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("wish", "moving"), [("no-preference", 1), ("reduce", 0)])
def test_nothing_moves_for_those_who_want_rest(open_view, wish, moving):
    page = open_view(View("/runs/{live}/", act=_ask_to_stop), reduced_motion=wish)
    at_first = page.evaluate("document.getAnimations().length")

    page.evaluate(_SLIDE)
    sliding = page.evaluate("document.getAnimations().length")

    assert at_first == 0
    assert sliding == moving
    page.close()


_SLIDE = """() => {
  const main = document.querySelector('main');
  main.style.transition = 'opacity 60s';
  main.getBoundingClientRect();
  main.style.opacity = '0.5';
  main.getBoundingClientRect();
}"""


# ── on paper ──────────────────────────────────────────────────────────────────────────────────────────────────────────

PAPER = {"width": 718, "height": 1000}
"""A4 with the margins that browsers leave, in CSS pixels."""
PRINTED = {
    "/runs/{live}/": ["h1", ".ribbon svg", ".figures", "[data-plot=accuracy] canvas", "[data-part=rounds] table"],
    "/compare/?run={finished}&run={slower}": ["h1", "[data-plot=accuracy] canvas", "[data-part=bests] table"],
    "/runs/{finished}/rounds/": ["h1", "table"],
    "/runs/": ["h1", "table"],
    "/devices/": ["h1", ".mosaic svg", "table"],
    "/devices/{clinic}/": ["h1", ".strip", ".small-chart svg", "table"],
    "/events/": ["h1", ".log .event"],
    "/health/": ["h1", ".settings"],
    "/docs/deployment/": ["h1", ".prose table"],
}


def test_on_paper_a_dark_page_is_light_and_says_all_but_what_could_be_pressed(open_view):
    wrong = {}
    for path, stays in PRINTED.items():
        page = open_view(View(path), color_scheme="dark", viewport=PAPER)
        page.emulate_media(media="print")
        lines = page.evaluate(_ON_PAPER, stays) + violations(page, OF_COLOUR)
        if lines:
            wrong[path] = lines
        page.close()

    assert wrong == {}


_ON_PAPER = """(stays) => {
  const chrome = '.side, .top, .foot, .tabbar, .notices, .bar, .skip, .tabs, button, .button, select, input';
  const shown = (selector) => [...document.querySelectorAll(selector)].filter((e) => e.checkVisibility());
  const lines = shown(chrome).map((e) => `is printed: ${e.outerHTML.slice(0, 120)}`);
  lines.push(...stays.filter((selector) => !shown(selector).length).map((selector) => `is not printed: ${selector}`));
  for (const e of [document.body, ...document.querySelectorAll('.card')]) {
    if (getComputedStyle(e).backgroundColor !== 'rgb(255, 255, 255)') lines.push(`is not white: ${e.className}`);
  }
  return lines;
}"""


def test_a_dark_curve_is_drawn_anew_for_paper_and_again_for_the_screen(open_view):
    page = open_view(View("/runs/{live}/"), color_scheme="dark")
    wait_for(page, f"({_DRAWN})('loss', '{CURVES['dark']['loss']}') > 50")

    page.emulate_media(media="print")
    on_paper = wait_for(page, f"({_DRAWN})('loss', '{CURVES['light']['loss']}') > 50")
    page.emulate_media(media="screen")
    on_screen = wait_for(page, f"({_DRAWN})('loss', '{CURVES['dark']['loss']}') > 50")

    assert on_paper
    assert on_screen
    page.close()


# ── the keyboard's focus ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("opener", ["a[data-command=stop]", ".top [data-open-palette]", "[data-open-keys]"])
def test_a_dialog_that_is_closed_gives_the_focus_back_to_what_opened_it(open_view, opener):
    page = open_view(View("/runs/{live}/"))

    page.focus(opener)
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    inside = page.evaluate("document.activeElement.closest('dialog') !== null")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="detached")

    assert inside
    assert page.evaluate(f"document.activeElement === document.querySelector('{opener}')")
    page.close()


def test_the_first_key_leads_past_the_navigation_to_the_content(open_view):
    page = open_view(View("/devices/"))

    page.keyboard.press("Tab")
    is_seen = page.evaluate("document.activeElement.getBoundingClientRect().top >= 0")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")

    assert is_seen
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")
    page.close()


def test_a_row_that_moves_takes_the_focus_with_it(house, open_view):
    page = open_view(View("/"))
    names = "[...document.querySelectorAll('[data-list=devices] [data-field=name]')].map((e) => e.textContent)"
    first, second = page.evaluate(names)[:2]
    page.focus("[data-list=devices] tr:nth-child(2) [data-field=name]")

    # Whoever was first goes behind all others, and those below move up.
    house.server.manage("shell", "-v0", "-c", RENAME.format(old=first, new="zz"))
    wait_for(page, f"{names}[0] === '{second}'")
    focused = page.evaluate("document.activeElement.textContent")
    house.server.manage("shell", "-v0", "-c", RENAME.format(old="zz", new=first))

    assert focused == second
    page.close()


RENAME = """
from django.utils import timezone
from fl.devices import rename_device
from fl.models import Device
rename_device(device=Device.objects.get(name="{old}"), name="{new}", now=timezone.now(), by=None)
"""


def test_a_command_leaves_the_focus_to_the_one_that_comes_in_its_place(open_view):
    page = open_view(View("/runs/{live}/", who="operator"))

    for done, next_one in (("pause", "resume"), ("resume", "pause")):
        page.focus(f"[data-command={done}] button")
        page.keyboard.press("Enter")
        page.wait_for_selector(f"[data-command={next_one}]:not([hidden])")
        page.wait_for_selector(f"[data-command={done}]", state="hidden")
        assert page.evaluate("document.activeElement.closest('[data-command]').dataset.command") == next_one
    page.close()
