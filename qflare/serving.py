"""What both web servers keep to, so that nobody can tell by their sockets which of the two is running."""

import fcntl
import struct
import termios
from dataclasses import dataclass
from pathlib import Path

MESSAGE_BYTES = 1024 * 1024
"""The outer wall for one message of a client; what is taken is far less (see `realtime.limits`)."""
BACKLOG = 2048
"""How many connections may wait for the loop: those of a whole fleet that comes back at once."""
BUFFER_BYTES = 256 * 1024
"""How much may wait in this process for one peer before the one who sends has to wait too."""
KERNEL_BYTES = 128 * 1024
"""What the system is asked to keep for one peer besides (Linux takes it twice, for needs of its own)."""
LOOKS = 10
"""How often a peer is looked at in the time that it has to take something."""
CLOSE_SECONDS = 2.0
"""How long a peer may take to answer a close frame, and consumers to leave when the server ends."""


@dataclass(frozen=True)
class Certificate:
    """What a server that speaks TLS itself shows of itself.

    Attributes:
        chain: PEM file with its own certificate and then those between it and an authority.
        key: PEM file with the private key, without a password.
    """

    chain: Path
    key: Path


class CannotListen(Exception):
    """The address is taken, or not ours."""


def kept_by_system(descriptor: int) -> int:
    """Return how many bytes this system keeps that a TCP socket's peer has not taken yet."""
    return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))[0])
