"""A message as it goes over the wire: made once, whoever and however many it goes to."""

import struct

_FINAL_TEXT = 0x81


class Frame:
    """A text message, as the bytes of the whole WebSocket frame, for a server that writes them as they are."""

    __slots__ = ("size", "wire")

    def __init__(self, text: str) -> None:
        data = text.encode()
        self.size = len(data)
        self.wire = _header(len(data)) + data

    @property
    def text(self) -> str:
        """The message, for a server that makes frames itself; not kept, since most are never asked for it."""
        return self.wire[-self.size :].decode() if self.size else ""


def _header(size: int) -> bytes:
    """Return the header of a final, unmasked text frame, as servers send it (RFC 6455, section 5.2)."""
    if size < 126:
        return bytes((_FINAL_TEXT, size))
    if size < 1 << 16:
        return struct.pack("!BBH", _FINAL_TEXT, 126, size)
    return struct.pack("!BBQ", _FINAL_TEXT, 127, size)
