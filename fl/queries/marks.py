"""What a learning curve is marked with: where a run was paused, and why."""

from dataclasses import dataclass
from datetime import datetime

import msgspec
from django.utils.translation import gettext

from fl.models import Event, Run

MOST_MARKS = 40


@dataclass(frozen=True)
class Mark:
    """Something that happened to a run in a round; `round` is None before its first."""

    round: int | None
    at: datetime
    text: str


def pauses_of(run: Run) -> list[Mark]:
    """Read where a run was paused, oldest first: the newest `MOST_MARKS` of them.

    The log tells a state, never a change: a run that is paused is told as such again when its open round ends, and
    what is told again within one round is one pause.
    """
    told = Event.objects.filter(stream=run.stream, event="fl_status_update", data__contains='"state":"paused"')
    marks: dict[int | None, Mark] = {}
    for data, timestamp in told.order_by("seq").values_list("data", "timestamp"):
        status = msgspec.json.decode(data)
        # While its open round goes on, the reason may be that of the round.
        text = status["reason"] if status["reason"].startswith("paused") else gettext("paused")
        marks.setdefault(status["round"], Mark(round=status["round"], at=timestamp, text=text))
    return list(marks.values())[-MOST_MARKS:]
