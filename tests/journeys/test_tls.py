"""The core of it over TLS: our servers' own, a proxy that ends it and asks by another name, and nginx as documented.

Clients verify what they are shown, and trust the tests' authority alone.
"""

import json
import signal
import time
from contextlib import contextmanager
from itertools import islice

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from edge.errors import ServerUnreachable
from edge.events import Events
from tests.journeys.house import name_of, sign_in
from tests.journeys.installation import Listener
from tests.journeys.prepare import ADMIN, PASSWORD
from tests.journeys.proxy import Proxy
from tests.journeys.waiting import GIVE_UP_SECONDS, wait_for
from tests.realtime.raw import RawClient, drop_all
from tests.realtime.servers import OURS
from tests.services.nginx import nginx

WAYS = [*OURS, "proxy", "nginx"]
END_SECONDS = 5
MARGIN_SECONDS = 10
SETTINGS = {"QFLARE_STALL_SECONDS": "1", "QFLARE_POLL_SECONDS": "0.1"}
LOUD = (1200, 20_000)


@pytest.fixture(scope="module", params=WAYS)
def house(request, template, certificates, tmp_path_factory):
    """A house with a live server, addressed by https in one of the ways; its person signed in that way."""
    way = request.param
    folder = tmp_path_factory.mktemp(way)
    with template.copy_to(folder / "house", **SETTINGS) as house:
        house.certificates = certificates
        if way in OURS:
            tls = ("--certificate", certificates.chain, "--key", certificates.key)
            house.options = ("--server", way, *tls)
            house.serve(*house.options)
            house.session = sign_in(house)
            yield house
            return
        house.settings["QFLARE_BEHIND_TLS"] = "1"
        house.options = ()
        house.serve()
        with standing_before(house, way, folder / way) as port:
            house.front = port
            house.session = sign_in(house)
            yield house


@contextmanager
def standing_before(house, way, folder):
    """Run what ends TLS before the house's server; gives its port."""
    if way == "nginx":
        with nginx(folder, house.port, house.certificates) as port:
            yield port
    else:
        with Proxy(house.certificates, house.port) as proxy:
            yield proxy.port


@pytest.fixture(autouse=True)
def no_socket_is_left():
    yield
    drop_all()


def listener(house, since=None):
    return Listener(house, since or {})


def say(house, message):
    house.post("/api/v1/broadcasts/", {"message": message, "audiences": ["dashboard"]})


def said_to(following, number):
    """The next messages that were said; devices that go away may be told of in between."""
    told = (event for event in following if event.event != "device_status")
    return [event.data["message"] for event in islice(told, number)]


def stuck_dashboard(house):
    """Open a dashboard's socket that reads its welcome and then nothing."""
    return raw_dashboard(house, receive_buffer=4096)


def raw_dashboard(house, receive_buffer=None):
    """Open a dashboard's socket down to the bytes, of which the welcome was read."""
    port, trust = house.front or house.port, house.certificates.trust
    headers = [f"Cookie: sessionid={house.session}"]
    options = {"origin": house.address, "headers": headers, "receive_buffer": receive_buffer, "trust": trust}
    client = RawClient(port, "/ws/dashboard", **options)
    assert json.loads(client.text())["event"] == "welcome"
    return client


# ── who may ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_who_does_not_know_the_authority_is_told_so_and_sends_nothing(house):
    with pytest.raises(httpx.ConnectError, match=r"(?i)certificate verify failed"):
        httpx.get(house.address, trust_env=False)

    device = house.start(
        *("stranger", "-m", "edge", "run", "--home", house.home(5), "--server", house.address),
        *("--task", "patient", "--partition", "iid:0/1"),
    )
    wait_for("the device says what is wrong", lambda: "certificate" in device.said().lower(), needs=[])
    device.stop()


def test_cookies_are_only_for_https_and_a_page_may_connect_from_the_address_it_was_asked_by(house):
    options = {"verify": house.trust, "trust_env": False, "timeout": GIVE_UP_SECONDS}
    with httpx.Client(base_url=house.address, headers={"Origin": house.address}, **options) as browser:
        # Whatever a client says of itself, the proxy says what is true.
        lies = {"X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example"}
        browser.get("/login/", headers=lies).raise_for_status()
        form = {"username": ADMIN, "password": PASSWORD, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        signed_in = browser.post("/login/", data=form, headers=lies)
        refused = browser.post("/login/", data=form, headers={"Origin": "https://evil.example"})

    assert signed_in.is_redirect, signed_in.text
    cookies = signed_in.headers.get_list("set-cookie")
    assert {cookie.split("=")[0] for cookie in cookies} == {"csrftoken", "sessionid"}
    assert all("secure" in cookie.lower() for cookie in cookies)
    assert refused.status_code == 403
    with listener(house):
        pass
    url = house.address.replace("http", "ws") + "/ws/dashboard"
    for origin in ("https://evil.example", "https://learning.internal", house.address.replace("https", "http")):
        with pytest.raises(InvalidStatus) as refusal:
            connect(url, ssl=house.trust, origin=origin, proxy=None).__enter__()
        assert refusal.value.response.status_code == 403


# ── bytes up and down ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_device_enrols_learns_and_sends_its_update_and_a_download_goes_on_where_it_broke_off(house):
    token = house.post("/api/v1/enrollment-tokens/", {"label": "tls", "auto_approve": True, "lifetime_hours": 1})
    ca = ("--ca", house.certificates.authority)
    enrolled = house.start(
        *("enrol", "-m", "edge", "enroll", house.address, "--name", name_of(6), "--home", house.home(6), *ca),
        QFLARE_TOKEN=token["token"],
    )
    assert enrolled.wait() == 0, enrolled.said()
    device = house.device(6, of=6)
    house.wait_until_online(6)

    run = house.start_run(cohort_size=1, rounds=1)
    house.wait_for_run(run)

    assert [update["state"] for update in house.updates(run)] == ["accepted"]
    path = f"/api/v1/runs/{run}/models/1/weights/"
    whole = house.get(path)
    part = house.get(path, headers={"Range": "bytes=100-", "If-Range": whole.headers["ETag"]})
    assert (part.status_code, part.content) == (206, whole.content[100:])
    assert device.stop() == 0


# ── events ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_who_comes_back_goes_on_where_it_stood(house):
    with listener(house) as left:
        say(house, "first")
        left.read_until_said("first")
    say(house, "missed")

    with listener(house, since=left.positions()) as found:
        found.read_until_said("missed")
        say(house, "last")
        found.read_until_said("last")


def test_a_program_follows_over_tls_while_it_answers_and_comes_back(house):
    events = Events(house.address, cookie=f"sessionid={house.session}", ca=house.certificates.authority)
    following = iter(events)
    assert next(following).event == "snapshot"
    for number in range(30):
        say(house, f"for programs {number}")

    found = said_to(following, 30)
    following.close()

    assert found == [f"for programs {number}" for number in range(30)]
    say(house, "later")
    again = iter(
        Events(
            house.address,
            cookie=f"sessionid={house.session}",
            ca=house.certificates.authority,
            positions=events.positions,
        )
    )
    assert said_to(again, 2) == ["for programs 29", "later"]
    again.close()


def test_a_program_is_told_at_once_that_it_does_not_trust_the_server(house):
    with pytest.raises(ServerUnreachable, match="not trusted") as error:
        next(iter(Events(house.address, cookie=f"sessionid={house.session}")))

    assert "ca=" in error.value.action


def test_a_peer_that_never_reads_is_ended_and_its_neighbours_get_everything(house):
    count, size = LOUD
    stuck = stuck_dashboard(house)
    with listener(house) as neighbour:
        before = neighbour.positions().get("system", (None, 0))[1]
        loud = house.start("loud", "-m", "tests.journeys.loud", count, size, **server_settings(house))
        while neighbour.last("system") < before + count:
            neighbour.read()
        assert loud.wait() == 0, loud.said()

    wait_for("it is ended", lambda: "took nothing for 1 s" in house.server.said(), needs=[house.server])
    assert stuck.close_code() in (1006, 4008)


def server_settings(house):
    return {"QFLARE_DATA_DIR": str(house.data), "DJANGO_SETTINGS_MODULE": "qflare.settings"}


def test_on_sigterm_everybody_is_told_to_come_back_and_who_does_not_read_holds_up_nothing(house):
    count, size = 300, 20_000
    for _ in range(3):
        stuck_dashboard(house)
    with listener(house) as page:
        before = page.last("system")
        loud = house.start("loud", "-m", "tests.journeys.loud", count, size, **server_settings(house))
        while page.last("system") < before + count:
            page.read()
        assert loud.wait() == 0, loud.said()

        # The library's client forgets what came with the close frame where its answer to it fails.
        told = raw_dashboard(house)
        asked_at = time.monotonic()
        house.server.send(signal.SIGTERM)
        while (frame := json.loads(told.text()))["event"] != "bye":
            pass
        code = told.close_code()

    assert house.server.wait() == 0
    assert time.monotonic() - asked_at < END_SECONDS + MARGIN_SECONDS
    assert (frame["data"]["code"], code) == (4001, 4001)
    assert "Traceback" not in house.server.said()
    house.serve(*house.options)
    with listener(house, since=page.positions()) as again:
        say(house, "again")
        again.read_until_said("again")
