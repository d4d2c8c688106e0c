"""What browser tests begin with: a real server, real devices, and pages that report whatever goes wrong in them."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import sync_playwright

from tests.realtime.servers import start_server

ROOT = Path(__file__).parent.parent.parent
PATIENCE_MS = 120_000
PREPARE = """
import json, sys
from datetime import timedelta
from django.contrib.auth.models import Group, User
from django.utils import timezone
from fl.devices import issue_token
from fl.people import issue_sign_in_code
now = timezone.now()
codes = {}
for role in ("viewer", "operator", "admin"):
    user, _ = User.objects.get_or_create(username=role)
    user.groups.set([Group.objects.get(name=role)])
    codes[role] = issue_sign_in_code(user=user, now=now)
tokens = [
    str(issue_token(label="", auto_approve=True, lifetime=timedelta(hours=1), created_by=None, now=now)[1])
    for _ in range(%d)
]
print(json.dumps({"codes": codes, "tokens": tokens}))
"""


@dataclass
class Page:
    """A browser's page, with everything that went wrong in it."""

    page: object
    base: str
    faults: list = field(default_factory=list)
    foreign: list = field(default_factory=list)

    def watch(self):
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("console", self._console)
        self.page.on("request", self._request)
        self.page.add_init_script(
            "addEventListener('securitypolicyviolation', e => console.error('CSP: ' + e.violatedDirective))"
        )
        return self

    def _console(self, message):
        if message.type in ("error", "warning"):
            self.faults.append(f"{message.type}: {message.text} {message.location.get('url', '')}")

    def _request(self, request):
        parts = urlsplit(request.url)
        if parts.scheme != "data" and parts.netloc != urlsplit(self.base).netloc:
            self.foreign.append(request.url)

    def state_of(self, element_id="state"):
        return json.loads(self.page.text_content(f"#{element_id}"))

    def wait_until_live(self):
        self.page.wait_for_selector('[data-part=pill][data-state="live"]', timeout=PATIENCE_MS)

    def wait_for(self, expression):
        """Wait until an expression of the page is true, and return its value.

        Playwright's own `wait_for_function` evaluates within the page, which its Content-Security-Policy forbids.
        """
        for _ in range(PATIENCE_MS // 50):
            if value := self.page.evaluate(expression):
                return value
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never true: {expression}")

    def text(self, selector):
        return self.page.inner_text(selector).strip()


class World:
    """A server, its people and its devices."""

    def __init__(self, folder, environment=None, port=0):
        self.folder = folder
        self.server = start_server(folder / "server", environment=environment, port=port)
        self.url = self.server.url
        self._fleets = []

    def prepare(self, devices=0):
        """Make people of each role and tokens for devices; return sign-in codes and tokens."""
        printed = self.server.manage("shell", "-v0", "-c", PREPARE % devices)
        return json.loads(printed.strip().splitlines()[-1])

    def start_fleet(self, tokens, task="digits", further=()):
        """Start a process with a device for each token, all over the real wire, with further options."""
        file = self.folder / "tokens"
        file.write_text("\n".join(tokens) + "\n")
        command = [sys.executable, "-m", "edge", "fleet", self.url, "--devices", str(len(tokens)), "--task", task]
        options = [
            "--tokens-file",
            str(file),
            "--home",
            str(self.folder / "fleet"),
            "--no-model",
            "--name",
            "device",
            *further,
        ]
        with (self.folder / "fleet.log").open("w") as log:
            fleet = subprocess.Popen([*command, *options], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        self._fleets.append(fleet)
        return fleet

    def query(self, expression):
        """Return the value of a Python expression over `fl.models` and `auth`, as the server's database has it now."""
        code = f"import json\nfrom django.contrib import auth\nfrom fl.models import *\nprint(json.dumps({expression}))"
        return json.loads(self.server.manage("shell", "-v0", "-c", code).strip().splitlines()[-1])

    def close(self):
        for fleet in self._fleets:
            if fleet.poll() is None:
                fleet.send_signal(signal.SIGTERM)
            fleet.wait(60)
        self.server.stop()


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.close()


# Not for the session: while it is open its loop runs in this thread, where other modules' tests need their own.
@pytest.fixture(scope="module")
def chromium(chromium_options):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**chromium_options)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """Open a page in a context of its own; what went wrong in it is an error at the end, if it was not looked at."""
    contexts = []

    def open_one(base, **options):
        context = chromium.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        return Page(context.new_page(), base).watch()

    yield open_one
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def screenshots_wanted():
    """Whether documents' pictures are to be made anew: QFLARE_SCREENSHOTS=1; otherwise a test leaves the tree alone."""
    return os.environ.get("QFLARE_SCREENSHOTS") == "1"
