"""What is said in the log: of an outage one line, not one each second with a stack trace."""

import logging

import pytest
from channels_redis.pubsub import RedisPubSubChannelLayer
from django.test import RequestFactory

from qflare.logs import OncePerOutage, WithoutProbes
from tests.realtime.sockets import eventually


@pytest.fixture
def lines(caplog):
    """What the logger of channels_redis lets pass."""
    once = OncePerOutage()
    logger = logging.getLogger("channels_redis.pubsub")
    before = logger.filters[:]
    logger.filters[:] = [once]
    caplog.once = once
    yield caplog
    logger.filters[:] = before


async def test_of_an_outage_of_redis_one_line_is_said_without_a_trace(redis_server, lines):
    layer = RedisPubSubChannelLayer(hosts=[redis_server.url])
    await layer.new_channel()
    calls = []
    lines.once.filter = lambda record, let=lines.once.filter: (calls.append(record), let(record))[1]

    redis_server.stop()
    await eventually(lambda: len(calls) >= 3)

    (record,) = [record for record in lines.records if record.name == "channels_redis.pubsub"]
    assert record.message.startswith("Redis is away: ConnectionError")
    assert record.exc_info is None
    await layer.flush()


def test_the_next_outage_is_said_and_so_is_what_is_none(lines):
    logger = logging.getLogger("channels_redis.pubsub")

    def fail(error):
        try:
            raise error
        except Exception:
            logger.exception("it failed")

    for error in (OSError("first"), OSError("still"), ValueError("a mistake")):
        fail(error)
    lines.once._at -= OncePerOutage.QUIET_SECONDS
    fail(OSError("second"))

    assert [record.message for record in lines.records] == [
        "Redis is away: OSError: first",
        "it failed",
        "Redis is away: OSError: second",
    ]
    assert lines.records[1].exc_info


def test_the_settings_use_it():
    from django.conf import settings

    assert settings.LOGGING["loggers"]["channels_redis.pubsub"]["filters"] == ["once_per_outage"]


def test_answers_to_probes_are_not_noted_and_all_others_are():
    probe, other = RequestFactory().get("/readyz"), RequestFactory().get("/runs/")
    own = WithoutProbes()

    assert not own.filter(logging.makeLogRecord({"request": probe}))
    assert own.filter(logging.makeLogRecord({"request": other}))
    assert own.filter(logging.makeLogRecord({}))
