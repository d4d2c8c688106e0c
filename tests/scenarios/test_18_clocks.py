"""Clocks that are wrong: order is that of the log, and what runs out does so by the server's clock alone."""

import typing
from datetime import date, datetime, timedelta

import httpx
import msgspec
from django.utils import timezone

from edge.protocol import client
from fl.models import Event, PresenceLease
from tests.builders import participant
from tests.fl.threads import eventually
from tests.scenarios.crowd import Crowd
from tests.scenarios.devices import Beating, RawDevice
from tests.scenarios.stand import SCALED
from tests.scenarios.table import scenario
from tests.scenarios.test_14_to_17_presence import told

HOUR = 3600
PATIENT = SCALED | {
    "QFLARE_HEARTBEAT_SECONDS": "3",
    "QFLARE_LEASE_SECONDS": "8",
    "QFLARE_PING_SECONDS": "4",
    "QFLARE_PONG_SECONDS": "3",
}
"""A busy machine may stand still for longer than three short heartbeats, and who is there would rightly be ended."""


@scenario(18, "a clock that steps back an hour changes no order, ends no lease and lets no token live on")
def test_when_the_server_s_clock_steps_back_order_stays_leases_stay_and_tokens_run_out_by_it(stand):
    server = stand.start(**PATIENT, QFLARE_DEVICE_TOKEN_SECONDS="600")
    crowd = Crowd(server, 3, cookie=stand.cookie())
    fleet = [participant(now=timezone.now()) for _ in range(5)]
    devices = [RawDevice(server.port, one) for one in fleet]
    token = devices[0].welcome["data"]["token"]["token"]

    with Beating(*devices) as beating:
        eventually(lambda: PresenceLease.objects.count() == 5)
        server.ask("record", count=10)
        before = timezone.now()
        server.ask("set_clock", off_by_seconds=-HOUR)
        server.ask("record", count=10, first=11)
        # Each lease is renewed by the clock that stepped back, and again, and nobody is taken for gone.
        for _ in range(2):
            newest = max(PresenceLease.objects.values_list("lease_until", flat=True))
            eventually(lambda newest=newest: all_renewed(before, newest))
        assert {tuple(seen) for seen in told().values()} == {("offline", "online")}
        assert answers_to(server, token) != 401

        gone = beating.devices.pop()
        gone.client.drop()
        eventually(lambda: told()[fleet[-1].device.pk][-1] == "offline")
        assert PresenceLease.objects.count() == 4

    last = Event.objects.filter(stream="system").count()
    crowd.wait_for("system", last)
    crowd.assert_exact()
    titles = [title for _, title in sorted(crowd.titles("system").items()) if title]
    assert titles == [str(n) for n in range(1, 21)]
    times = list(Event.objects.filter(stream="system").order_by("seq").values_list("timestamp", flat=True))
    assert times != sorted(times)
    server.ask("set_clock", off_by_seconds=601)
    assert answers_to(server, token) == 401


@scenario(18, "a clock that jumps ahead an hour ends no lease, but those of devices that have gone")
def test_when_the_server_s_clock_jumps_ahead_nobody_who_is_there_is_announced_offline(stand):
    server = stand.start(**PATIENT)
    fleet = [participant(now=timezone.now()) for _ in range(5)]
    devices = [RawDevice(server.port, one) for one in fleet]

    with Beating(*devices) as beating:
        eventually(lambda: PresenceLease.objects.count() == 5)
        server.ask("set_clock", off_by_seconds=HOUR)
        # Whoever goes now is announced, and that is the first sweep since.
        beating.devices.pop().client.drop()
        eventually(lambda: told()[fleet[-1].device.pk][-1] == "offline")
        assert {tuple(told()[one.device.pk]) for one in fleet[:-1]} == {("offline", "online")}
        assert PresenceLease.objects.count() == 4


def all_renewed(before, newest):
    """Say whether all leases were given by the clock that stepped back, and after the newest of an earlier look."""
    leases = list(PresenceLease.objects.values_list("lease_until", flat=True))
    stepped = before - timedelta(seconds=HOUR / 2)
    return all(until < stepped and (newest > stepped or until > newest) for until in leases)


def answers_to(server, token):
    """Ask with a device's token for what devices may see; return the status."""
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"{server.url}/api/v1/runs/", headers=headers, trust_env=False, timeout=60).status_code


def test_a_device_whose_clock_is_days_off_has_no_way_to_say_so():
    """What a device says has no time in it, so that none can decide anything."""
    messages = [
        found for found in vars(client).values() if isinstance(found, type) and issubclass(found, msgspec.Struct)
    ]

    for message in messages:
        for name, kind in typing.get_type_hints(message).items():
            assert not {datetime, date} & set(typing.get_args(kind) or [kind]), (message, name)
            assert not name.endswith(("_at", "time", "timestamp")), (message, name)
    assert {"Hello", "Heartbeat", "Progress"} <= {message.__name__ for message in messages}
