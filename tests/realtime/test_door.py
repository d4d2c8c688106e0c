"""Who is let in by one process, and who is one too many."""

import asyncio
import resource
import threading

import pytest

from realtime import authentication
from realtime.database import THREADS
from realtime.door import raise_open_files
from realtime.process import this_process
from tests.builders import participant, person
from tests.realtime.acts import cookie_of
from tests.realtime.devices import connected_device
from tests.realtime.sockets import Socket, eventually


async def dashboard(**options):
    socket = await Socket("/ws/dashboard", **options).connect()
    await socket.opened()
    return socket


async def refusal(path="/ws/dashboard", **options):
    code, frames = await (await Socket(path, **options).connect()).closed()
    assert [frame["event"] for frame in frames] == ["bye"]
    assert frames[0]["data"]["code"] == code
    return code, frames[0]["data"]["reason"]


@pytest.fixture
def public(settings):
    settings.QFLARE_PUBLIC_DASHBOARD = True


async def test_a_process_takes_so_many_connections_those_in_their_handshake_included(loop, settings, public):
    settings.QFLARE_MAX_CONNECTIONS = 2
    await dashboard()
    silent = await Socket("/ws/clients").connect()

    assert (await refusal())[0] == 4013

    await silent.leave()
    await dashboard()
    assert len(this_process().door) == 2


async def test_an_address_has_so_many_connections_and_others_are_let_in(loop, settings, public):
    settings.QFLARE_MAX_CONNECTIONS_PER_ADDRESS = 2
    sockets = [await dashboard(), await dashboard()]

    code, reason = await refusal()

    assert (code, "address" in reason) == (4013, True)
    other = Socket("/ws/dashboard")
    other.scope["client"] = ["127.0.0.2", 5]
    await other.connect()
    await other.opened()
    await sockets[0].leave()
    await dashboard()


async def test_behind_a_listed_proxy_its_clients_are_counted_each_for_itself(loop, settings, public):
    from ipaddress import ip_network

    settings.QFLARE_MAX_CONNECTIONS_PER_ADDRESS = 1
    settings.QFLARE_TRUSTED_PROXIES = [ip_network("127.0.0.1")]
    for name in ("198.51.100.1", "198.51.100.2"):
        await dashboard(headers={"x-forwarded-for": name})

    assert (await refusal(headers={"x-forwarded-for": "198.51.100.2"}))[0] == 4013

    settings.QFLARE_TRUSTED_PROXIES = []
    await dashboard(headers={"x-forwarded-for": "198.51.100.2"})
    assert (await refusal(headers={"x-forwarded-for": "198.51.100.3"}))[0] == 4013


async def test_devices_that_proved_their_keys_may_share_an_address(loop, settings, public):
    settings.QFLARE_MAX_CONNECTIONS_PER_ADDRESS = 1
    for _ in range(3):
        await connected_device(await asyncio.to_thread(participant))

    await dashboard()
    assert (await refusal())[0] == 4013


async def test_a_person_has_so_many_connections_of_whatever_type(loop, settings):
    settings.QFLARE_MAX_CONNECTIONS_PER_USER = 2
    ada, bob = [await asyncio.to_thread(lambda n=n: cookie_of(person(n, "admin"))) for n in ("ada", "bob")]
    first = await dashboard(cookie=ada)
    await (await Socket("/ws/admin", cookie=ada).connect()).opened()

    code, reason = await refusal(cookie=ada)

    assert (code, "person" in reason) == (4013, True)
    await dashboard(cookie=bob)
    await first.leave()
    await dashboard(cookie=ada)


async def test_so_many_connect_in_a_second_and_so_many_at_once(loop, settings, public):
    settings.QFLARE_HANDSHAKE_BURST = 3
    settings.QFLARE_HANDSHAKES_PER_SECOND = 0.1
    for _ in range(3):
        await dashboard()

    code, frames = await (await Socket("/ws/dashboard").connect()).closed()
    assert code == 4013
    assert 500 <= frames[-1]["data"]["retry_after_ms"] <= 10_000


async def test_whoever_leaves_in_whatever_way_is_counted_no_more(loop, settings, public):
    refused = await Socket("/ws/admin").connect()
    assert (await refused.closed())[0] == 4500
    cookie = await asyncio.to_thread(lambda: cookie_of(person("ada", "admin")))
    sockets = [await dashboard(cookie=cookie), await connected_device(await asyncio.to_thread(participant))]
    for socket in (refused, *sockets):
        await socket.leave()

    door = this_process().door

    assert len(door) == 0
    assert not door._by_address
    assert not door._by_person


async def test_a_server_that_cannot_open_a_connection_in_time_says_to_come_again(loop, settings, public, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(authentication, "person_of", lambda *_: gate.wait(30))
    settings.QFLARE_HANDSHAKE_SECONDS = 0.2
    socket = await Socket("/ws/dashboard").connect()
    try:
        frames = [await socket.frame()]
        assert (frames[0]["event"], frames[0]["data"]["code"]) == ("bye", 4001)
    finally:
        gate.set()


async def test_for_those_who_were_sent_away_while_they_waited_nothing_is_asked(loop, settings, public, monkeypatch):
    """Else, when more come at once than can be let in in time, nobody ever is: all work is for those who have gone."""
    gate, asked, person_of = threading.Event(), [], authentication.person_of

    def slow_person_of(*arguments):
        asked.append(arguments)
        gate.wait(30)
        return person_of(*arguments)

    monkeypatch.setattr(authentication, "person_of", slow_person_of)
    settings.QFLARE_HANDSHAKE_SECONDS = 0.2
    sockets = [await Socket("/ws/dashboard").connect() for _ in range(3 * THREADS)]
    for socket in sockets:
        assert (await socket.closed())[0] == 4001
    gate.set()
    for socket in sockets:
        await socket.leave()

    assert len(asked) == THREADS
    settings.QFLARE_HANDSHAKE_SECONDS = 10
    assert await (await Socket("/ws/dashboard").connect()).opened()


async def test_a_device_that_was_let_in_is_not_given_up_later(loop, settings, monkeypatch):
    monkeypatch.setattr("edge.protocol.handshake.CHALLENGE_EXPIRES_SECONDS", 1)
    settings.QFLARE_HANDSHAKE_SECONDS = 1
    device = await connected_device(await asyncio.to_thread(participant))
    over = loop.time() + 1.1

    await eventually(lambda: loop.time() > over)

    await device.say("heartbeat")
    assert (await device.frame())["event"] == "heartbeat"


def test_a_process_may_open_as_many_files_as_the_system_allows():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))

    assert raise_open_files() == hard

    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


def test_too_few_files_for_the_connections_are_told_of(settings, caplog):
    settings.QFLARE_MAX_CONNECTIONS = 10**9

    raise_open_files()

    assert "QFLARE_MAX_CONNECTIONS" in caplog.text
