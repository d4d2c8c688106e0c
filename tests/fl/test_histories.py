"""An older copy of the database that is put back is another history: every stream gets a new epoch."""

import json

import pytest

from edge.protocol.server import ErrorNotification, Position
from fl import events, histories, seen_in_redis
from fl.models import Event, Stream
from tests.builders import NOW

pytestmark = pytest.mark.django_db

NOBODY = "redis://127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def process_of_its_own(settings, tmp_path, monkeypatch):
    settings.QFLARE_SEEN_HEADS = tmp_path / "data" / "seen-heads.json"
    monkeypatch.setattr(histories, "_has_looked", False)
    monkeypatch.setattr(seen_in_redis, "_away_since", None)


@pytest.fixture
def start_again(monkeypatch):
    """Forget what this process knows, as a process that starts does."""
    return lambda: monkeypatch.setattr(histories, "_has_looked", False)


def record(stream, number=1):
    for _ in range(number):
        with events.transaction():
            events.record(stream, ErrorNotification(code="x", title="x"), NOW)


def epochs():
    return dict(Stream.objects.values_list("name", "epoch"))


def put_back(**heads):
    """Make the log what it was when the streams stood at these heads."""
    for name, head in heads.items():
        Stream.objects.filter(pk=name).update(head=head)
        Event.objects.filter(stream=name, seq__gt=head).delete()


@pytest.mark.parametrize(
    ("seen", "now", "found"),
    [
        ({}, {"a": ("e", 5)}, set()),
        ({"a": ("e", 5)}, {"a": ("e", 5)}, set()),
        ({"a": ("e", 5)}, {"a": ("e", 6)}, set()),
        ({"a": ("e", 5)}, {"a": ("e", 4)}, {"a"}),
        ({"a": ("e", 5)}, {"a": ("other", 4)}, set()),
        ({"a": ("e", 5)}, {}, set()),
        ({"a": ("e", 5), "b": ("f", 2)}, {"a": ("e", 4), "b": ("f", 3)}, {"a"}),
    ],
)
def test_a_stream_has_fallen_when_it_is_lower_within_the_same_history(seen, now, found):
    seen, now = ({n: Position(epoch=e, seq=s) for n, (e, s) in one.items()} for one in (seen, now))

    assert set(histories.fallen(seen, now)) == found


def test_an_older_copy_gives_every_stream_a_new_epoch_once():
    record("system", 5)
    record("run:1", 3)
    record("device:1", 2)
    histories.look()
    before = epochs()
    put_back(system=4)

    histories.look()

    after = epochs()
    assert set(after) == set(before)
    assert not [name for name in before if before[name] == after[name]]
    histories.look()
    assert epochs() == after


def test_streams_that_go_on_keep_their_epoch():
    record("system", 5)
    histories.look()
    before = epochs()
    record("system", 2)

    histories.look()

    assert epochs() == before


def test_a_process_that_starts_renews_before_it_records_anything(start_again):
    record("system", 5)
    histories.look()
    old = epochs()["system"]
    put_back(system=3)
    start_again()

    record("system", 4)

    stream = Stream.objects.get()
    assert (stream.head, stream.epoch != old) == (7, True)


def test_of_two_processes_that_notice_one_renews():
    record("system", 5)
    seen = {"system": Position(epoch=epochs()["system"], seq=9)}

    assert histories.renew(seen)
    renewed = epochs()

    assert not histories.renew(seen)
    assert epochs() == renewed


def test_where_nothing_was_ever_seen_recording_asks_nothing_more(django_assert_num_queries):
    record("system")

    with django_assert_num_queries(0):
        histories.look_once()


def test_a_new_database_beside_an_old_file_is_a_history_of_its_own():
    record("system", 5)
    histories.look()
    Stream.objects.all().delete()
    record("system", 2)
    before = epochs()

    histories.look()

    assert epochs() == before
    assert json.loads((histories._file()).read_text()) == {"system": [before["system"], 2]}


@pytest.mark.parametrize("text", ["", "[]", '{"system": 7}', "not json"])
def test_a_file_that_cannot_be_read_is_told_of_and_written_anew(text, caplog):
    record("system", 5)
    histories.look()
    histories._file().write_text(text)

    histories.look()

    assert "cannot be read" in caplog.text
    assert json.loads(histories._file().read_text()) == {"system": [epochs()["system"], 5]}


# ── in Redis ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def another_machine(settings, tmp_path, start_again):
    """Go on as a process with a fresh data folder, which shares nothing but the database and Redis."""

    def go():
        settings.QFLARE_SEEN_HEADS = tmp_path / "elsewhere" / "seen-heads.json"
        start_again()

    return go


def test_a_machine_with_a_fresh_folder_learns_from_redis_how_far_streams_were_seen(
    settings, redis_url, another_machine
):
    settings.REDIS_URL = redis_url
    record("system", 5)
    histories.look()
    old = epochs()["system"]
    put_back(system=3)
    another_machine()

    record("system", 4)

    stream = Stream.objects.get()
    assert (stream.head, stream.epoch != old) == (7, True)


def test_what_another_process_has_seen_since_is_not_taken_back(settings, redis_url):
    settings.REDIS_URL = redis_url
    record("system", 5)
    histories.look()
    (name, seen), *_ = histories._heads().items()

    seen_in_redis.write({name: Position(epoch=seen.epoch, seq=9)}, {})
    seen_in_redis.write({name: Position(epoch=seen.epoch, seq=7)}, {})

    assert seen_in_redis.read()[name].seq == 9
    seen_in_redis.write({name: Position(epoch="another", seq=1)}, {})
    assert seen_in_redis.read()[name] == Position(epoch="another", seq=1)
    seen_in_redis.write({}, seen_in_redis.read())
    assert name not in seen_in_redis.read()


def test_two_installations_on_one_redis_leave_each_other_s_heads_alone(settings, redis_url, another_machine):
    settings.REDIS_URL = redis_url
    settings.QFLARE_REDIS_PREFIX = "one"
    record("system", 5)
    record("run:1", 2)
    histories.look()
    seen = seen_in_redis.read()

    settings.QFLARE_REDIS_PREFIX = "another"
    Stream.objects.filter(pk="run:1").delete()
    another_machine()
    histories.look()

    assert set(seen_in_redis.read()) == {"system"}
    settings.QFLARE_REDIS_PREFIX = "one"
    assert seen_in_redis.read() == seen


def test_where_redis_is_away_the_file_does_and_nobody_waits_twice(settings, caplog, start_again):
    settings.REDIS_URL = NOBODY
    record("system", 5)
    histories.look()
    old = epochs()["system"]
    put_back(system=3)
    start_again()

    record("system", 1)
    histories.look()

    assert epochs()["system"] != old
    assert caplog.text.count("Redis does not say") == 1


def test_what_redis_did_not_hear_while_it_was_away_it_is_told_later(settings, redis_url, monkeypatch):
    settings.REDIS_URL = NOBODY
    record("system", 5)
    histories.look()
    settings.REDIS_URL = redis_url
    monkeypatch.setattr(seen_in_redis, "PAUSE_SECONDS", 0)

    histories.look()

    assert seen_in_redis.read()["system"] == Position(epoch=epochs()["system"], seq=5)


def test_a_key_that_holds_something_else_is_no_reason_to_stop(settings, redis_url, caplog):
    settings.REDIS_URL = redis_url
    redis = seen_in_redis._redis(redis_url)
    redis.delete(seen_in_redis.key())
    redis.set(seen_in_redis.key(), "x")
    try:
        record("system", 5)
        histories.look()
    finally:
        redis.delete(seen_in_redis.key())

    assert "WRONGTYPE" in caplog.text
