"""When a peer stands still, by what its transport says; what is done then is tested over real servers."""

from types import SimpleNamespace

from qflare.outlets import Outlet, Watch


class Peer:
    """Daphne's protocol of a socket, as far as an outlet looks at it."""

    STATE_CLOSED, STATE_OPEN = 0, 3

    def __init__(self):
        self.state = self.STATE_OPEN
        self.sent = 0
        self.transport = SimpleNamespace(dataBuffer=b"", offset=0, _tempDataLen=0)

    def is_sent(self, sent, *, taken):
        self.sent += sent
        self.transport._tempDataLen += sent - taken


def outlet_of(peer):
    return Outlet(peer, Watch(), lost=lambda: None)


def test_a_peer_that_takes_something_does_not_stand_still_though_more_comes():
    peer = Peer()
    outlet = outlet_of(peer)

    for second in range(10):
        peer.is_sent(2000, taken=500)
        assert outlet.note(second) == 0


def test_a_peer_that_takes_nothing_stands_still_though_more_comes():
    peer = Peer()
    outlet = outlet_of(peer)

    seconds = []
    for second in range(4):
        peer.is_sent(2000, taken=0)
        seconds.append(outlet.note(second))

    assert seconds == [0, 1, 2, 3]


def test_where_nothing_waits_nobody_stands_still_and_the_count_begins_anew():
    peer = Peer()
    outlet = outlet_of(peer)
    peer.is_sent(100, taken=0)
    outlet.note(0)

    peer.is_sent(0, taken=100)

    assert outlet.note(5) is None
    peer.is_sent(100, taken=0)
    assert outlet.note(6) == 0
