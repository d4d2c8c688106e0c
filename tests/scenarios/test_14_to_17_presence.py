"""Devices that die, come twice or freeze, and servers that do."""

import json
from collections import Counter
from datetime import timedelta

from django.utils import timezone

from fl.models import Event, PresenceLease
from realtime.models import ServerProcess
from tests.builders import participant
from tests.fl.threads import eventually
from tests.realtime.raw import dashboard
from tests.scenarios.devices import Beating, Freezer, RawDevice
from tests.scenarios.stand import SCALED
from tests.scenarios.table import scenario


def told():
    """Return what people were told of each device's presence, in order, without repetitions."""
    found = {}
    for text in (
        Event.objects.filter(stream="system", event="device_status").order_by("seq").values_list("data", flat=True)
    ):
        data = json.loads(text)
        presences = found.setdefault(data["device_id"], [])
        if presences[-1:] != [data["presence"]]:
            presences.append(data["presence"])
    return found


def connections_of(server):
    for row in ServerProcess.objects.filter(instance__contains=f"-{server.process.pid}-"):
        return sum(row.connections.values())
    return 0


@scenario(14, "devices of a server that is killed go to the other; offline are only those that stay away")
def test_when_one_of_two_servers_is_killed_its_devices_go_to_the_other_and_only_those_that_stay_away_are_offline(stand):
    # Who watches reads only at the end, and answers no ping before. The lease is longer than it may take all to return;
    # for those that stay away the time is made to pass.
    settings = SCALED | {"QFLARE_PUBLIC_DASHBOARD": "1", "QFLARE_PING_SECONDS": "600", "QFLARE_LEASE_SECONDS": "600"}
    anna, bert = (stand.start(name, **settings) for name in ("anna", "bert"))
    fleet = [participant(now=timezone.now()) for _ in range(50)]
    watching = dashboard(bert)

    with Beating() as beating:
        for number, one in enumerate(fleet):
            beating.devices.append(RawDevice((anna if number < 25 else bert).port, one))
        anna.kill()
        killed_at = timezone.now()
        for one in fleet[:20]:
            beating.devices.append(RawDevice(bert.port, one))
        away = {one.device.pk for one in fleet[20:25]}
        left = PresenceLease.objects.filter(device__in=away)
        assert left.filter(lease_until__lte=killed_at + timedelta(seconds=600)).count() == 5  # nobody renews them
        left.update(lease_until=killed_at)
        eventually(lambda: {pk for pk, seen in told().items() if seen[-1] == "offline"} == away)
        leases = set(PresenceLease.objects.values_list("device_id", flat=True))

    assert leases == {one.device.pk for one in fleet} - away
    assert Counter(tuple(seen) for seen in told().values()) == {
        ("offline", "online"): 45,
        ("offline", "online", "offline"): 5,
    }
    last = Event.objects.filter(stream="system").order_by("-seq").first().seq
    seqs = []
    while not seqs or seqs[-1] < last:
        frame = json.loads(watching.text())
        seqs += [frame["seq"]] if frame.get("stream") == "system" else []
    assert seqs == list(range(seqs[0], last + 1))


@scenario(15, "at SIGTERM each of two hundred is told to come back at a time of its own")
def test_of_two_hundred_each_is_told_to_come_back_at_a_time_of_its_own(stand):
    server = stand.start(QFLARE_PUBLIC_DASHBOARD="1")
    clients = [dashboard(server) for _ in range(200)]

    server.process.terminate()

    waits = []
    for client in clients:
        while (frame := json.loads(client.text()))["event"] != "bye":
            pass
        waits.append(frame["data"]["retry_after_ms"])
        assert (frame["data"]["code"], client.close_code()) == (4001, 4001)
    assert server.stop() == 0
    assert not ServerProcess.objects.exists()
    assert max(Counter(wait // 100 for wait in waits).values()) <= 20


@scenario(16, "of two connections of a device the newer stays; a pair that takes turns is slowed")
def test_the_newer_of_two_connections_stays_and_a_pair_that_takes_turns_is_slowed(stand):
    server = stand.start(**SCALED)
    device = participant(now=timezone.now())
    older = RawDevice(server.port, device)
    newer = RawDevice(server.port, device)

    assert older.client.close_code() == 4504
    older.client.drop()
    with Beating(newer):
        taken = PresenceLease.objects.get()
        eventually(lambda: (PresenceLease.objects.get().lease_until - taken.lease_until).total_seconds() > 3)
    kept = PresenceLease.objects.get()
    assert (kept.connection_id, kept.closed_at) == (newer.connection_id, None)
    assert told()[device.device.pk] == ["offline", "online"]

    third, fourth = RawDevice(server.port, device), RawDevice(server.port, device)
    assert (newer.client.close_code(), third.client.close_code()) == (4504, 4504)
    fifth = RawDevice(server.port, device)
    # By the layer or by the lease, which a server here looks at all the time.
    assert (fourth.client.close_code(), fifth.client.close_code()) == (4013, 4013)
    assert Event.objects.filter(stream="system", data__contains='"duplicate_identity"').count() == 1


@scenario(17, "who is behind a way that froze is let go, and offline once")
def test_who_is_behind_a_way_that_froze_is_let_go_and_offline_once(stand):
    server = stand.start(**SCALED, QFLARE_PUBLIC_DASHBOARD="1")
    way = Freezer(server.port)
    frozen, alive = participant(now=timezone.now()), participant(now=timezone.now())
    RawDevice(way.port, frozen)
    other = RawDevice(server.port, alive)
    dashboard(_At(way.port))  # only listens
    dashboard(_At(way.port)).send('{"type":"heartbeat"}')
    eventually(lambda: connections_of(server) == 4)

    with Beating(other):
        way.freeze()
        eventually(lambda: connections_of(server) == 1)
        eventually(lambda: told()[frozen.device.pk][-1] == "offline")

    assert told() == {frozen.device.pk: ["offline", "online", "offline"], alive.device.pk: ["offline", "online"]}
    way.close()


class _At:
    def __init__(self, port):
        self.port = port
