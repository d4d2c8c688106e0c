"""The distribution's Chromium, for Playwright to drive; Playwright's own browsers are never downloaded."""

import os

import pytest

from tests.services.programs import find_program


@pytest.fixture(scope="session")
def chromium_path():
    """The path of the browser's program."""
    return find_program(["chromium", "chromium-browser", "google-chrome"], "chromium")


@pytest.fixture(scope="session")
def chromium_options(chromium_path):
    """What `playwright.chromium.launch(**chromium_options)` needs here, in its sync and its async form alike."""
    # As root Chromium's sandbox does not work; small /dev/shm of containers would crash its pages.
    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    return {"executable_path": str(chromium_path), "args": arguments}
