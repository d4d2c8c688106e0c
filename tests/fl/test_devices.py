"""Devices: one token lets one in, states move as the table says, and presence follows the newest connection."""

from base64 import b64encode
from datetime import timedelta

import msgspec
import pytest
from django.core import signing

from edge.identity import SigningKey
from edge.protocol import PROTOCOL
from edge.protocol.client import Hello, TaskOffer
from edge.protocol.enrollment import parse_token
from edge.protocol.http import EnrollmentRequest
from fl import devices, signals
from fl.exceptions import (
    Conflict,
    DeviceBarred,
    Invalid,
    TokenExpired,
    TokenRefused,
    Unauthenticated,
    WrongMove,
)
from fl.models import Assignment, Device, EnrollmentToken, Event, PresenceLease
from fl.server_key import server_key
from fl.tasks import digest_of_task
from tests.builders import NOW, at, fleet, participant, person, started_run, step
from tests.fl.threads import at_once

pytestmark = pytest.mark.django_db


def issue(*, auto_approve=True, lifetime=timedelta(hours=1)):
    return devices.issue_token(label="shed", auto_approve=auto_approve, lifetime=lifetime, created_by=None, now=NOW)


def request_with(text, *, key=None, **changes):
    """Return what an honest device asks with; `changes` are what this one does otherwise."""
    request = EnrollmentRequest(
        protocol=PROTOCOL,
        algorithm="ML-DSA-65",
        token_id=text.id,
        token_secret=text.secret,
        public_key=b64encode((key or SigningKey.generate()).public_key).decode(),
        name="shed-1",
    )
    return msgspec.structs.replace(request, **changes)


def statuses(device):
    """Return what `system` has told of a device, oldest first: (state, presence)."""
    told = [msgspec.json.decode(row.data) for row in Event.objects.filter(event="device_status").order_by("seq")]
    return [(data["state"], data["presence"]) for data in told if data["device_id"] == device.pk]


@pytest.fixture
def heard():
    """What was signalled of connections that must end."""
    told = []

    def barred(device_id, reason, **_):
        told.append(("barred", device_id, reason))

    def replaced(device_id, connection_id, **_):
        told.append(("replaced", device_id, connection_id))

    signals.device_barred.connect(barred)
    signals.device_replaced.connect(replaced)
    yield told
    signals.device_barred.disconnect(barred)
    signals.device_replaced.disconnect(replaced)


# ── tokens ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_carries_the_servers_fingerprint_and_only_a_hash_of_it_is_kept():
    token, text = issue()

    assert parse_token(str(text)) == text
    assert text.fingerprint == server_key().fingerprint
    assert token.expires_at == NOW + timedelta(hours=1)
    stored = str(EnrollmentToken.objects.values().get())
    assert text.secret not in stored
    assert text.secret not in repr(text)


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_token_without_a_lifetime_is_refused(seconds):
    with pytest.raises(Invalid) as refusal:
        issue(lifetime=timedelta(seconds=seconds))

    assert refusal.value.field == "lifetime"


def test_a_withdrawn_token_lets_nobody_in_and_is_gone():
    token, text = issue()

    devices.withdraw_token(token=token, now=NOW, by=None)

    assert not EnrollmentToken.objects.exists()
    with pytest.raises(TokenRefused):
        devices.enroll(request=request_with(text), now=NOW)


def test_a_token_that_was_used_or_withdrawn_is_not_withdrawn_again():
    used, text = issue()
    device = devices.enroll(request=request_with(text), now=NOW)
    gone, _ = issue()
    devices.withdraw_token(token=gone, now=NOW, by=None)

    for token in (used, gone):
        with pytest.raises(Conflict):
            devices.withdraw_token(token=token, now=NOW, by=None)

    assert EnrollmentToken.objects.get().device == device


# ── enrolment ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("auto_approve", "state"), [(True, "active"), (False, "pending")])
def test_a_token_lets_one_device_in_and_says_whether_it_must_wait(auto_approve, state):
    token, text = issue(auto_approve=auto_approve)
    key = SigningKey.generate()

    device = devices.enroll(request=request_with(text, key=key, edge_version="0.1.0"), now=at(5))

    assert (device.name, device.state, device.edge_version, device.enrolled_at) == ("shed-1", state, "0.1.0", at(5))
    assert (device.fingerprint, bytes(device.public_key)) == (key.fingerprint, key.public_key)
    token.refresh_from_db()
    assert (token.used_at, token.device) == (at(5), device)
    assert statuses(device) == [(state, "offline")]


def test_a_used_token_lets_nobody_else_in():
    _, text = issue()
    devices.enroll(request=request_with(text), now=NOW)

    with pytest.raises(TokenRefused):
        devices.enroll(request=request_with(text, name="shed-2"), now=NOW)

    assert Device.objects.count() == 1


def test_unknown_used_expired_and_wrong_tokens_are_answered_alike():
    _, used = issue()
    devices.enroll(request=request_with(used), now=NOW)
    _, expired = issue()
    _, good = issue()
    refused = [
        (request_with(used, name="a"), NOW),
        (request_with(expired, name="b"), at(3600)),
        (request_with(good, name="c", token_secret=used.secret), NOW),
        (request_with(good, name="d", token_id="0123456789ab"), NOW),
        (request_with(good, name="e", token_id="nul\0"), NOW),
    ]

    answers = set()
    for request, now in refused:
        with pytest.raises(TokenRefused) as refusal:
            devices.enroll(request=request, now=now)
        answers.add((refusal.value.reason_code, refusal.value.message, refusal.value.action))

    assert len(answers) == 1
    assert Device.objects.count() == 1


def test_the_same_request_with_the_same_key_answers_the_same_even_after_the_token_expired():
    _, text = issue()
    request = request_with(text)
    device = devices.enroll(request=request, now=NOW)

    assert devices.enroll(request=request, now=at(7200)) == device
    assert Device.objects.count() == 1
    assert len(statuses(device)) == 1


def test_a_name_that_is_taken_is_refused_and_the_token_stays_good():
    participant("shed-1")
    token, text = issue()

    with pytest.raises(Conflict) as refusal:
        devices.enroll(request=request_with(text), now=NOW)

    assert refusal.value.reason_code == "device_exists"
    assert "shed-1" in refusal.value.message
    token.refresh_from_db()
    assert token.used_at is None
    assert devices.enroll(request=request_with(text, name="shed-2"), now=NOW).name == "shed-2"


def test_a_key_that_is_enrolled_cannot_come_again_by_another_token():
    key = SigningKey.generate()
    _, first = issue()
    _, second = issue()
    devices.enroll(request=request_with(first, key=key), now=NOW)

    with pytest.raises(Conflict):
        devices.enroll(request=request_with(second, key=key, name="shed-2"), now=NOW)


WRONG_REQUESTS = {
    "another protocol": ({"protocol": "qflare.v2"}, "protocol"),
    "another algorithm": ({"algorithm": "Ed25519"}, "algorithm"),
    "no name": ({"name": "  "}, "name"),
    "a name that is too long": ({"name": "x" * 101}, "name"),
    "a name with a character that cannot be shown": ({"name": "shed\0"}, "name"),
    "a key that is not base64": ({"public_key": "not base64!"}, "public_key"),
    "a key that is too short": ({"public_key": b64encode(b"k" * 1951).decode()}, "public_key"),
    "a key that is too long": ({"public_key": b64encode(b"k" * 1953).decode()}, "public_key"),
}


@pytest.mark.parametrize(("changes", "field"), WRONG_REQUESTS.values(), ids=WRONG_REQUESTS.keys())
def test_a_wrong_request_is_refused_with_its_field_and_the_token_stays_good(changes, field):
    token, text = issue()

    with pytest.raises(Invalid) as refusal:
        devices.enroll(request=request_with(text, **changes), now=NOW)

    assert refusal.value.field == field
    token.refresh_from_db()
    assert token.used_at is None


def test_what_a_device_says_of_itself_fits_its_columns():
    _, text = issue()

    device = devices.enroll(request=request_with(text, name="  shed  ", edge_version="v" * 200), now=NOW)

    device.refresh_from_db()
    assert (device.name, device.edge_version) == ("shed", "v" * 40)


def test_what_a_device_says_of_its_version_is_kept_as_far_as_it_can_be_shown():
    _, text = issue()

    device = devices.enroll(request=request_with(text, edge_version="0.1\0.0\n"), now=NOW)
    device.refresh_from_db()
    assert device.edge_version == "0.1.0"

    Device.objects.filter(pk=device.pk).update(state="active")
    connect(device, "one", edge_version="\x000.2.0")
    device.refresh_from_db()
    assert device.edge_version == "0.2.0"


@pytest.mark.django_db(transaction=True)
def test_a_token_works_once_however_many_use_it_at_the_same_time():
    _, text = issue()
    requests = [request_with(text, name=f"shed-{number}") for number in range(4)]

    outcomes = at_once(*(lambda request=request: devices.enroll(request=request, now=NOW) for request in requests))

    let_in = [outcome for outcome in outcomes if isinstance(outcome, Device)]
    assert len(let_in) == 1
    assert sum(isinstance(outcome, TokenRefused) for outcome in outcomes) == 3
    assert list(Device.objects.all()) == let_in


@pytest.mark.django_db(transaction=True)
def test_a_device_that_asks_twice_at_the_same_time_is_let_in_both_times():
    _, text = issue()
    request = request_with(text)

    outcomes = at_once(*[lambda: devices.enroll(request=request, now=NOW)] * 4)

    assert outcomes == [Device.objects.get()] * 4


@pytest.mark.django_db(transaction=True)
def test_a_name_goes_to_one_of_those_who_ask_for_it_at_the_same_time():
    requests = [request_with(issue()[1]) for _ in range(4)]

    outcomes = at_once(*(lambda request=request: devices.enroll(request=request, now=NOW) for request in requests))

    assert sum(isinstance(outcome, Device) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 3


# ── its name and tags ─────────────────────────────────────────────────────────────────────────────────────────────────


def names_told(device):
    """Return the names and tags that `system` has told of a device, oldest first."""
    told = [msgspec.json.decode(row.data) for row in Event.objects.filter(event="device_status").order_by("seq")]
    return [(data["name"], data["tags"]) for data in told if data["device_id"] == device.pk]


def test_a_new_name_is_told():
    device = participant("shed").device

    devices.rename_device(device=device, name="  ward 7 ", now=at(1), by=None)

    assert Device.objects.get().name == "ward 7"
    assert names_told(device) == [("shed", []), ("ward 7", [])]


def test_a_name_that_another_device_has_is_refused():
    participant("ward")
    device = participant("shed").device

    with pytest.raises(Conflict) as refusal:
        devices.rename_device(device=device, name="ward", now=at(1), by=None)

    assert refusal.value.reason_code == "device_exists"
    assert names_told(device) == [("shed", [])]


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "nul\0", "two\nlines"])
def test_a_name_that_no_device_can_have_is_refused(name):
    device = participant("shed").device

    with pytest.raises(Invalid) as refusal:
        devices.rename_device(device=device, name=name, now=at(1), by=None)

    assert refusal.value.field == "name"
    assert Device.objects.get().name == "shed"


def test_tags_replace_those_before_and_are_told():
    device = participant("shed").device

    devices.tag_device(device=device, tags=["north", "north", "gpu"], now=at(1), by=None)
    devices.tag_device(device=device, tags=["south"], now=at(2), by=None)

    assert Device.objects.get().tags == ["south"]
    assert [tags for _, tags in names_told(device)] == [[], ["north", "gpu"], ["south"]]


def test_what_is_so_already_is_not_told_again():
    device = participant("shed").device

    devices.rename_device(device=device, name="shed", now=at(1), by=None)
    devices.tag_device(device=device, tags=[], now=at(1), by=None)

    assert len(names_told(device)) == 1


def test_a_name_and_tags_change_together_or_not_at_all():
    participant("ward")
    device = participant("shed").device

    with pytest.raises(Conflict):
        devices.describe_device(device=device, name="ward", tags=["gpu"], now=at(1), by=None)

    kept = Device.objects.get(pk=device.pk)
    assert (kept.name, kept.tags) == ("shed", [])


# ── a device's state ──────────────────────────────────────────────────────────────────────────────────────────────────

MOVES = {
    "approve": lambda device: devices.approve(device=device, now=NOW, by=None),
    "suspend": lambda device: devices.suspend(device=device, reason="a test", now=NOW, by=None),
    "reinstate": lambda device: devices.reinstate(device=device, now=NOW, by=None),
    "revoke": lambda device: devices.revoke(device=device, reason="a test", now=NOW, by=None),
}
OUTCOMES = {
    ("pending", "approve"): "active",
    ("pending", "revoke"): "revoked",
    ("active", "suspend"): "suspended",
    ("active", "revoke"): "revoked",
    ("suspended", "reinstate"): "active",
    ("suspended", "revoke"): "revoked",
}
WANTED = {"approve": "active", "suspend": "suspended", "reinstate": "active", "revoke": "revoked"}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("state", ["pending", "active", "suspended", "revoked"])
def test_a_device_moves_as_the_table_says_and_otherwise_says_from_where_to_where(state, move):
    device = participant().device
    Device.objects.filter(pk=device.pk).update(state=state)
    told = len(statuses(device))

    if (state, move) in OUTCOMES:
        moved = MOVES[move](device)
        assert moved.state == OUTCOMES[state, move]
        assert statuses(device)[told:] == [(moved.state, "offline")]
    else:
        with pytest.raises(WrongMove) as refusal:
            MOVES[move](device)
        assert (refusal.value.current, refusal.value.wanted) == (state, WANTED[move])
        assert statuses(device)[told:] == []
        device.refresh_from_db()
        assert device.state == state


def test_who_did_it_is_kept_where_no_reason_is_given():
    device = participant(auto_approve=False).device
    ada = person("ada", "operator")

    assert devices.approve(device=device, now=NOW, by=ada).state_reason == "approved by ada"
    assert devices.suspend(device=device, reason="", now=NOW, by=ada).state_reason == "suspended by ada"
    assert devices.reinstate(device=device, now=NOW, by=ada).state_reason == "reinstated by ada"
    assert devices.revoke(device=device, reason="lost", now=NOW, by=ada).state_reason == "lost"


def test_a_long_reason_is_cut_to_its_column():
    device = participant().device

    devices.suspend(device=device, reason="r" * 900, now=NOW, by=None)

    device.refresh_from_db()
    assert device.state_reason == "r" * 500


def test_a_device_that_was_barred_in_the_moment_of_its_selection_holds_no_round_up():
    barred, _, _ = fleet(3)
    run = started_run(cohort_size=3, quorum=2)
    step(run)
    Device.objects.filter(pk=barred.device.pk).update(state="suspended")  # seen by neither of two transactions

    devices.cancel_for_barred(now=at(1))
    devices.cancel_for_barred(now=at(2))

    assignment = barred.assignment()
    assert (assignment.state, assignment.reason, assignment.ended_at) == (
        "cancelled",
        "the device is suspended",
        at(1),
    )
    assert Assignment.objects.filter(state="assigned").count() == 2


@pytest.mark.parametrize(("move", "state"), [("suspend", "suspended"), ("revoke", "revoked")])
def test_barring_a_device_cancels_its_assignment_ends_its_connection_and_the_round_goes_on(
    move, state, heard, django_capture_on_commit_callbacks
):
    barred, first, second = fleet(3)
    run = started_run(cohort_size=3, quorum=2, rounds=1)
    step(run)

    with django_capture_on_commit_callbacks(execute=True):
        MOVES[move](barred.device)

    assignment = barred.assignment()
    assert (assignment.state, assignment.reason, assignment.ended_at) == (
        "cancelled",
        f"the device was {state}",
        NOW,
    )
    assert heard == [("barred", barred.device.pk, "a test")]
    cancel = Event.objects.filter(stream=barred.device.stream).latest("seq")
    assert cancel.event == "cancel"
    assert msgspec.json.decode(cancel.data)["assignment_id"] == assignment.pk
    told = msgspec.json.decode(Event.objects.filter(stream=run.stream).latest("seq").data)
    assert (told["updates_lost"], told["selected"]) == (1, 3)

    first.send()
    second.send()
    step(run)
    run.refresh_from_db()
    assert run.state == "completed"


def test_approving_ends_no_connection(heard, django_capture_on_commit_callbacks):
    device = participant(auto_approve=False).device

    with django_capture_on_commit_callbacks(execute=True):
        MOVES["approve"](device)

    assert heard == []


def test_a_device_that_cannot_be_moved_keeps_its_assignment():
    first, _ = fleet(2)
    step(started_run())

    with pytest.raises(WrongMove):
        devices.approve(device=first.device, now=NOW, by=None)

    assert first.assignment().state == "assigned"


# ── access by HTTP ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_access_token_names_its_device_until_it_expires(settings):
    settings.QFLARE_DEVICE_TOKEN_SECONDS = 900
    device = participant().device

    access = devices.access_token(device=device, now=NOW)

    assert access.expires_at == at(900)
    assert devices.device_of_token(token=access.token, now=at(899)) == device
    with pytest.raises(TokenExpired):
        devices.device_of_token(token=access.token, now=at(900))


@pytest.mark.parametrize("state", ["pending", "suspended", "revoked"])
def test_the_state_of_a_device_is_looked_up_at_each_request(state):
    device = participant().device
    access = devices.access_token(device=device, now=NOW)
    Device.objects.filter(pk=device.pk).update(state=state)

    with pytest.raises(DeviceBarred, match=state):
        devices.device_of_token(token=access.token, now=NOW)


def test_a_tampered_token_is_not_ours():
    access = devices.access_token(device=participant().device, now=NOW)
    content, _, signature = access.token.partition(":")
    other = signing.Signer(salt="another purpose").sign_object({"device": 1, "until": 2**40})

    for token in (access.token[:-1], f"{content}x:{signature}", f"{content}:", "", "x", ":", other, "é:\0"):
        with pytest.raises(Unauthenticated) as refusal:
            devices.device_of_token(token=token, now=NOW)
        assert type(refusal.value) is Unauthenticated


def test_the_token_of_a_device_that_is_gone_is_worth_nothing():
    device = participant().device
    access = devices.access_token(device=device, now=NOW)
    device.delete()

    with pytest.raises(Unauthenticated):
        devices.device_of_token(token=access.token, now=NOW)


# ── presence ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def connect(device, connection_id, now=NOW, *, instance="server-1", serving_since=None, **changes):
    offer = TaskOffer(task="linear", digest=digest_of_task("linear"), num_examples=40)
    hello = Hello(protocol=PROTOCOL, device_id=device.pk, tasks=[offer], edge_version="0.1.0")
    hello = msgspec.structs.replace(hello, **changes)
    return devices.connected(
        device_id=device.pk,
        connection_id=connection_id,
        instance=instance,
        hello=hello,
        now=now,
        serving_since=serving_since,
    )


def test_a_connection_makes_a_device_online_and_tells_it_once(settings):
    settings.QFLARE_LEASE_SECONDS = 150
    device = participant().device

    connect(device, "one", at(5))

    lease = PresenceLease.objects.get(device=device)
    assert (lease.connection_id, lease.instance, lease.lease_until) == ("one", "server-1", at(155))
    device.refresh_from_db()
    assert (device.last_heard_at, device.edge_version, device.protocol) == (at(5), "0.1.0", PROTOCOL)
    assert statuses(device) == [("active", "offline"), ("active", "online")]


def test_the_newest_connection_wins_and_the_older_one_is_told_to_end(heard, django_capture_on_commit_callbacks):
    device = participant().device
    connect(device, "old")

    with django_capture_on_commit_callbacks(execute=True):
        connect(device, "new", at(1))

    assert PresenceLease.objects.get().connection_id == "new"
    assert heard == [("replaced", device.pk, "old")]
    assert statuses(device) == [("active", "offline"), ("active", "online")]


def alarms():
    rows = Event.objects.filter(stream="system", event="error_notification")
    return [row.data for row in rows if "duplicate_identity" in row.data]


def test_many_replacements_within_a_minute_are_two_devices(heard, django_capture_on_commit_callbacks):
    device = participant().device

    with django_capture_on_commit_callbacks(execute=True):
        for second in range(5):
            connect(device, f"c{second}", at(second))

    assert len(alarms()) == 1
    # The last is told of by another signal, and its lease says so too: all connections end.
    assert heard == [("replaced", device.pk, f"c{second}") for second in range(3)]
    assert PresenceLease.objects.get().is_duplicate
    assert Device.objects.get().duplicated_at == at(4)
    devices.disconnected(connection_id="c4", now=at(4))
    connect(device, "c5", at(5))
    assert not PresenceLease.objects.get().is_duplicate


@pytest.mark.parametrize(("within", "apart"), [(60, 25), (5, 2)])
def test_replacements_that_are_far_apart_are_a_bad_network(settings, within, apart):
    settings.QFLARE_REPLACEMENTS_WITHIN_SECONDS = within
    device = participant().device

    for number in range(20):
        connect(device, f"c{number}", at(apart * number))

    assert alarms() == []


def test_connections_that_were_closed_are_not_replaced():
    device = participant().device

    for second in range(20):
        connect(device, f"c{second}", at(second))
        devices.disconnected(connection_id=f"c{second}", now=at(second))

    assert alarms() == []


def test_connections_that_died_with_their_server_are_not_replaced():
    device = participant().device

    for second in range(20):
        connect(device, f"c{second}", at(second), instance=f"server-{second}", serving_since=at(second - 0.5))

    assert alarms() == []


def test_two_that_connect_to_two_servers_are_noticed_too():
    device = participant().device

    for second in range(5):
        connect(device, f"c{second}", at(second), instance=f"server-{second % 2}", serving_since=at(-60))

    assert len(alarms()) == 1


def test_the_late_end_of_an_old_connection_changes_nothing(settings):
    device = participant().device
    connect(device, "old")
    connect(device, "new", at(1))
    before = PresenceLease.objects.values().get()

    devices.disconnected(connection_id="old", now=at(2))

    assert PresenceLease.objects.values().get() == before


def test_a_device_is_offline_when_the_grace_after_its_disconnect_runs_out_and_it_is_told_once(settings):
    settings.QFLARE_PRESENCE_GRACE_SECONDS = 15
    device = participant().device
    connect(device, "one")

    devices.disconnected(connection_id="one", now=at(10))

    assert devices.expire_leases(now=at(24)) == 0
    assert statuses(device)[-1] == ("active", "online")
    assert devices.expire_leases(now=at(25)) == 1
    assert devices.expire_leases(now=at(25)) == 0
    assert statuses(device) == [("active", "offline"), ("active", "online"), ("active", "offline")]


def test_a_second_disconnect_does_not_lengthen_the_grace(settings):
    settings.QFLARE_PRESENCE_GRACE_SECONDS = 15
    device = participant().device
    connect(device, "one")

    devices.disconnected(connection_id="one", now=at(10))
    devices.disconnected(connection_id="one", now=at(20))

    assert PresenceLease.objects.get().lease_until == at(25)


def test_a_device_that_comes_back_within_the_grace_was_never_away(heard, django_capture_on_commit_callbacks):
    device = participant().device
    connect(device, "one")
    devices.disconnected(connection_id="one", now=at(10))

    with django_capture_on_commit_callbacks(execute=True):
        connect(device, "two", at(12))

    assert devices.expire_leases(now=at(100)) == 0
    assert statuses(device) == [("active", "offline"), ("active", "online")]
    assert heard == []


def test_a_device_that_says_nothing_is_offline_when_its_lease_runs_out(settings):
    settings.QFLARE_LEASE_SECONDS = 150
    device = participant().device
    connect(device, "one")

    assert devices.expire_leases(now=at(149)) == 0
    assert devices.expire_leases(now=at(150)) == 1
    connect(device, "two", at(200))

    assert [presence for _, presence in statuses(device)] == ["offline", "online", "offline", "online"]


def test_a_lease_of_a_clock_that_was_ahead_ends_no_later_than_one_that_is_given_now(settings):
    settings.QFLARE_LEASE_SECONDS = 150
    ahead, right = participant().device, participant().device
    connect(ahead, "one", at(3600))
    connect(right, "two", at(-20))

    devices.shorten_leases(now=NOW)

    until = dict(PresenceLease.objects.values_list("device", "lease_until"))
    assert until == {ahead.pk: at(150), right.pk: at(130)}


def test_heartbeats_of_many_devices_renew_their_leases_with_one_update_of_each_table(
    settings, django_assert_num_queries
):
    settings.QFLARE_LEASE_SECONDS = 150
    there = fleet(5)
    gone = there.pop()
    devices.disconnected(connection_id=gone.connection_id, now=at(1))

    with django_assert_num_queries(2):
        devices.heard_from(connection_ids=[one.connection_id for one in [*there, gone]], now=at(60))

    until = dict(PresenceLease.objects.values_list("device", "lease_until"))
    heard = dict(Device.objects.values_list("pk", "last_heard_at"))
    for one in there:
        assert (until[one.device.pk], heard[one.device.pk]) == (at(210), at(60))
    assert heard[gone.device.pk] == NOW
    assert until[gone.device.pk] < at(60)


def test_new_offers_are_stored_and_told_and_the_same_again_are_not():
    device = participant().device
    connect(device, "one")
    more = [
        TaskOffer(task="linear", digest="d" * 64, num_examples=7, supports=["proximal"]),
        TaskOffer(task="digits", digest="e" * 64, num_examples=9),
    ]

    connect(device, "two", tasks=more)
    connect(device, "three", tasks=more[::-1])

    assert list(device.tasks.values_list("task", "digest", "num_examples", "supports")) == [
        ("digits", "e" * 64, 9, []),
        ("linear", "d" * 64, 7, ["proximal"]),
    ]
    assert len(statuses(device)) == 3


WRONG_OFFERS = {
    "a name that is too long": TaskOffer(task="t" * 101, digest="d" * 64, num_examples=1),
    "no name": TaskOffer(task="", digest="d" * 64, num_examples=1),
    "a name that cannot be shown": TaskOffer(task="li\0near", digest="d" * 64, num_examples=1),
    "a digest that is none": TaskOffer(task="linear", digest="d" * 65, num_examples=1),
    "fewer than no examples": TaskOffer(task="linear", digest="d" * 64, num_examples=-1),
    "more examples than there are": TaskOffer(task="linear", digest="d" * 64, num_examples=2**31),
    "a support that cannot be shown": TaskOffer(task="linear", digest="d" * 64, num_examples=1, supports=["\0"]),
}


@pytest.mark.parametrize("offer", WRONG_OFFERS.values(), ids=WRONG_OFFERS.keys())
def test_an_offer_that_cannot_be_is_refused_and_nothing_changes(offer):
    device = participant().device

    with pytest.raises(Invalid) as refusal:
        connect(device, "one", tasks=[offer])

    assert refusal.value.field == "tasks"
    assert not PresenceLease.objects.exists()
    assert not device.tasks.exists()


@pytest.mark.parametrize("state", ["pending", "suspended", "revoked"])
def test_a_device_that_is_not_active_gets_no_lease(state):
    device = participant().device
    Device.objects.filter(pk=device.pk).update(state=state)

    with pytest.raises(DeviceBarred, match=state):
        connect(device, "one")

    assert not PresenceLease.objects.exists()


def test_an_unknown_device_gets_no_lease():
    device = participant().device
    Device.objects.all().delete()

    with pytest.raises(DeviceBarred, match="unknown"):
        connect(device, "one")


def test_acknowledgements_of_many_devices_are_noted_at_once_and_only_move_forward():
    first, second, silent = (participant().device for _ in range(3))

    devices.acknowledge(seqs={first.pk: 5, second.pk: 2})
    devices.acknowledge(seqs={first.pk: 3, second.pk: 4})

    acked = dict(Device.objects.values_list("pk", "acked_seq"))
    assert acked == {first.pk: 5, second.pk: 4, silent.pk: 0}


@pytest.mark.django_db(transaction=True)
def test_an_expired_lease_is_announced_once_however_many_sweep():
    gone = fleet(3)
    for one in gone:
        devices.disconnected(connection_id=one.connection_id, now=NOW)

    outcomes = at_once(*[lambda: devices.expire_leases(now=at(60))] * 4)

    assert sum(outcomes) == 3
    for one in gone:
        assert [presence for _, presence in statuses(one.device)] == ["offline", "online", "offline"]
    assert Assignment.objects.count() == 0


def test_while_the_server_s_clock_steps_back_and_again_nobody_who_is_heard_is_announced_offline(settings):
    settings.QFLARE_LEASE_SECONDS = 150
    fleet = [participant().device for _ in range(3)]
    ids = [f"connection-{device.pk}" for device in fleet]
    for device, connection_id in zip(fleet, ids, strict=True):
        connect(device, connection_id, at(3600))

    for seconds in (0, 30, 60):  # an hour earlier
        assert devices.expire_leases(now=at(seconds)) == 0
        devices.heard_from(connection_ids=ids, now=at(seconds))
    assert {lease.lease_until for lease in PresenceLease.objects.all()} == {at(60 + 150)}
    devices.heard_from(connection_ids=ids, now=at(3690))  # set right, and heard before anybody sweeps
    assert devices.expire_leases(now=at(3690)) == 0

    assert all(statuses(device)[-1] == ("active", "online") for device in fleet)
