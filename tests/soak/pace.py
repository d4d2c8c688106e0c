"""How fast one socket was read, so that a peer that a server ends rightly as stalled is told from one it wrongs.

A server ends a peer whose system has taken nothing for 5 s. Whether the system takes something is not told by when it
was read last: Linux tells the sender of room only after some reads. So it is the time for so many bytes that counts.
"""

from collections import deque

BUFFER_BYTES = 1 << 18
"""What the system is asked to keep of what a socket has not read yet.

Left alone it takes up to what `tcp_rmem` allows, which is 6 or 32 MB, and tells the sender of room only when a
sixteenth of that is free. With 64 KiB it throws away much that comes in many small frames, and has to be sent it anew:
14,800 times in 27 minutes, where it was 850 at most in 13 minutes with 256 KiB, and a third as many sockets were ended.
"""
ROOM_BYTES = 30 << 14
"""After so many the sender was told of room.

Measured with that buffer and the servers' own (`KERNEL_BYTES`), frames of 100 bytes to 256 KiB, reads of 16 to 256 KiB:
up to 478 KB were read between two times that the sender could write again.
"""
KEPT_BYTES = 3 << 18
"""So many can still be read after the sender has hung up.

It is twice what both systems are asked to keep; 458 KB were measured.
"""


class Pace:
    """What was read of one connection, and how fast."""

    def __init__(self, now):
        """Begin with a connection of which nothing waits.

        Args:
            now: seconds of a clock that never goes back, here and in all methods.
        """
        self._total = 0
        self._marks = deque([(now, 0)])
        """(when, bytes until then): the first is where the newest ROOM_BYTES began, or where nothing waited."""
        self._slowest = deque()
        """(bytes until then, seconds) of the last KEPT_BYTES, where none that came later took longer."""

    def emptied(self, now):
        """Take note that nothing waited then, not even the end: what was late before is no excuse for an end after."""
        self._slowest.clear()
        self._marks.clear()
        self._marks.append((now, self._total))

    def read(self, now, count):
        """Take note that so many bytes were read, perhaps none."""
        self._total += count
        marks, slowest = self._marks, self._slowest
        while len(marks) > 1 and marks[1][1] <= self._total - ROOM_BYTES:
            marks.popleft()
        seconds = now - marks[0][0]
        marks.append((now, self._total))
        while slowest and slowest[-1][1] <= seconds:
            slowest.pop()
        slowest.append((self._total, seconds))
        while slowest[0][0] < self._total - KEPT_BYTES:
            slowest.popleft()

    @property
    def seconds(self):
        """The longest time that a server may have heard of no room, before it sent what could be read since."""
        return self._slowest[0][1] if self._slowest else 0.0
