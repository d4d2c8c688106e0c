"""Where streams stand, for pages to carry: nothing falls between what was rendered and what comes by the socket."""

from collections.abc import Iterable

from edge.protocol.server import Position
from fl.events import SYSTEM
from fl.models import Run
from fl.visibility import Principal, audience_stream, streams_for

Positions = dict[str, Position]


def positions_of(principal: Principal, runs: Iterable[Run]) -> Positions:
    """Return where the streams stand that a page is about: those of its runs, and the server's own."""
    names = {run.stream for run in runs} | {SYSTEM, audience_stream("dashboard"), audience_stream("general")}
    seen = streams_for(principal).filter(name__in=names)
    return {name: Position(epoch=epoch, seq=head) for name, epoch, head in seen.values_list("name", "epoch", "head")}
