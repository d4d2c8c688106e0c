"""Whatever text anybody sends is a message, or has a documented reason. Live servers: scenario 19."""

import json

from hypothesis import example, given
from hypothesis import strategies as some

from edge.protocol import client as messages
from realtime.consumers.base import Refused as Answered
from realtime.consumers.base import parse
from tests.realtime.documented import DOCUMENTED

JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda children: some.lists(children) | some.dictionaries(some.text(), children),
)
TYPES = some.sampled_from(["hello", "auth", "heartbeat", "sub", "unsub", "ack", "progress", "cmd", "other"])
FIELDS = some.sampled_from(["id", "streams", "since", "stream", "seq", "name", "args", "idem", "protocol", "state"])


@given(text=some.text())
@example(text="\ud800")
@example(text='{"type":"heartbeat","type":"heartbeat"}')
@example(text='{"type":"ack","stream":"x","seq":NaN}')
@example(text="[" * 100_000)
@example(text='{"type":"cmd","name":"x","idem":"y","args":' + '{"a":' * 50_000)
def test_any_text_is_a_message_or_has_a_documented_reason(text):
    taken_or_answered(text)


@given(kind=TYPES, fields=some.dictionaries(FIELDS, JSON))
def test_any_fields_make_a_message_or_have_a_documented_reason(kind, fields):
    taken_or_answered(json.dumps({"type": kind, **fields}))


def taken_or_answered(text):
    try:
        assert isinstance(parse(text), messages.MESSAGES)
    except Answered as answer:
        assert answer.code in DOCUMENTED
        assert answer.message
