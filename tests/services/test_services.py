"""The services that tests start are what they claim: fresh, our own, and able to come back."""

from urllib.parse import urlsplit

import psycopg
import pytest
from playwright.async_api import async_playwright

from tests.services.programs import give_up
from tests.services.redis import answers


def test_a_missing_program_skips_at_home_and_fails_in_continuous_integration():
    with pytest.raises(pytest.skip.Exception, match="install it"):
        give_up("install it", in_continuous_integration=False)

    with pytest.raises(pytest.fail.Exception, match="install it"):
        give_up("install it", in_continuous_integration=True)


def tables_of(url):
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()[0]


def make_table(url):
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE traces (id int)")


def test_a_database_is_fresh_and_takes_tables(postgres_database):
    assert tables_of(postgres_database) == 0

    make_table(postgres_database)

    assert tables_of(postgres_database) == 1


def test_the_next_test_finds_nothing_of_the_one_before(postgres_database):
    assert tables_of(postgres_database) == 0

    make_table(postgres_database)


def test_a_redis_that_was_stopped_comes_back_on_the_same_port(redis_server):
    url = redis_server.url

    redis_server.stop()
    assert not answers(redis_server.port)
    redis_server.start()

    assert redis_server.url == url
    assert answers(redis_server.port)


def test_the_shared_redis_answers(redis_url):
    assert answers(urlsplit(redis_url).port)


async def test_chromium_shows_a_page_and_runs_its_script(chromium_options):
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(**chromium_options)
        page = await browser.new_page()

        await page.set_content("<title>before</title><script>document.title = 'after'</script>")

        assert await page.title() == "after"
        await browser.close()
