"""A page lives in its reader's language: as the server renders it, as scripts paint over it, as events come."""

import re

import pytest

DEVICES = 3
LOCALES = {"en": "en-US", "de": "de-DE"}


@pytest.fixture
def demo(world, open_page):
    """A server with devices, and the run of the demo in a German page that is live."""
    made = world.prepare(DEVICES)
    world.start_fleet(made["tokens"])
    page = open_page(world.url, locale=LOCALES["de"])
    page.page.goto(f"{world.url}/sign-in/#code={made['codes']['operator']}")
    page.page.wait_for_url(f"{world.url}/")
    page.page.wait_for_selector("[data-demo]:not([hidden])")
    page.wait_for(f"document.querySelector('[data-field=online]').textContent === '{DEVICES}'")
    page.page.click("[data-demo] button")
    page.page.wait_for_selector("[data-part=curve] canvas")
    page.wait_until_live()
    return world, page


def test_what_events_bring_is_told_in_the_readers_language(demo):
    _, page = demo
    browser = page.page
    known = _round_of(page)

    page.wait_for(f"Number({_POSITION}.match(/\\d+/)?.[0]) > {known} && {_POSITION}")
    page.wait_for(f"{_FEED}.some((title) => title === 'Runde {known + 1} ist abgeschlossen')")
    browser.wait_for_selector("[data-part=pill][title^='Hin und zurück in']")
    browser.context.set_offline(True)
    browser.wait_for_selector("[data-part=bar]:not([hidden])")

    assert browser.get_attribute("html", "lang") == "de"
    assert re.fullmatch(r"Runde \d+ von 20", page.text("[data-part=ribbon] [data-field=position]"))
    assert re.fullmatch(r"\d{1,3},\d\d %", page.text("[data-part=figures] [data-field=accuracy]"))
    assert "Daten von" in page.text("[data-part=bar]")


_POSITION = "document.querySelector('[data-part=ribbon] [data-field=position]').textContent"
_FEED = "[...document.querySelectorAll('[data-list=feed] [data-field=title]')].map((title) => title.textContent)"


def _round_of(page):
    """Wait until a round is open; return its number."""
    return int(page.wait_for(f"{_POSITION}.match(/\\d+(?= von 20)/)?.[0]"))


def test_scripts_paint_what_the_server_has_rendered(demo, open_page):
    world, page = demo
    browser = page.page
    page.wait_for("Number(document.querySelector('[data-part=curve]').dataset.points) > 2")
    browser.click("[data-command=pause] button")
    browser.wait_for_selector("form[data-command=resume]:not([hidden])")
    browser.wait_for_selector('[data-field=phases][data-state="completed"]')
    address, cookies = browser.url, browser.context.cookies()
    # The newest events are told when the page is read again.
    browser.close()

    def texts(language, *, live):
        """Return what the page says, before its scripts, or after they have painted it for the first time."""
        opened = open_page(world.url, locale=LOCALES[language], java_script_enabled=live)
        opened.page.context.add_cookies(cookies)
        opened.page.goto(address)
        if live:
            opened.wait_until_live()
            opened.page.wait_for_selector("[data-part=curve][data-points]")
            opened.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return opened.page.evaluate(_TEXTS)

    for language in LOCALES:
        rendered, painted = (texts(language, live=live) for live in (False, True))

        assert painted == rendered, language
        numbers = [text for _, _, text in painted if re.search(r"\d %", text)]
        mark = {"en": ".", "de": ","}[language]
        assert numbers
        assert all(re.search(rf"\d{re.escape(mark)}\d", text) for text in numbers), numbers


_TEXTS = """[...document.querySelectorAll('[data-part] [data-field]')]
  .filter((e) => !e.matches('[data-part=pill] *, [data-part=bar] *, [data-part=curve] *'))
  .filter((e) => !e.querySelector('time') && !e.matches('[data-field=heard]'))
  .map((e) => [e.closest('[data-part]').dataset.part, e.dataset.field, e.textContent.trim().replace(/\\s+/g, ' ')])
"""
"""What is said in the fields of parts, times aside, which scripts write in the viewer's zone."""
