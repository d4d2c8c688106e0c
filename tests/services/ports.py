"""Finds a free port for a program that cannot be told to take any."""

import socket


def free_port():
    """Return a TCP port of 127.0.0.1 that was just free; another process may be quicker, so callers try again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
