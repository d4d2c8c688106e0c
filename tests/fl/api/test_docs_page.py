"""The page that shows the API works in a browser, under its policy, with nothing from another host."""

import pytest
from playwright.sync_api import sync_playwright


@pytest.mark.django_db(transaction=True)
def test_the_page_lists_the_operations_and_tries_one(viewer, live_server, chromium_options):
    cookie = viewer.cookies["sessionid"].value
    problems, hosts = [], set()

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**chromium_options)
        context = browser.new_context()
        context.add_cookies([{"name": "sessionid", "value": cookie, "url": live_server.url}])
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: hosts.add(request.url.split("/")[2]) if "://" in request.url else None)

        page.goto(f"{live_server.url}/api/docs/")
        page.locator("#operations-strategies-strategies_list").click()
        page.get_by_role("button", name="Try it out").click()
        page.get_by_role("button", name="Execute").click()
        answer = page.locator(".live-responses-table td.response-col_description:not(.col_header)").inner_text()
        browser.close()

    assert "fedavg" in answer
    assert problems == []
    assert hosts == {live_server.url.split("/")[2]}
