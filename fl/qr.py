"""QR codes as one SVG path, made here: no other host hears what is in them."""

from dataclasses import dataclass

import segno

QUIET = 4
"""Light modules around a code, as its standard asks for."""


@dataclass(frozen=True)
class QrCode:
    """A code as a square of `size` modules a side, its dark ones in one path."""

    size: int
    path: str


def qr_code(text: str) -> QrCode:
    """Return the QR code of a text, readable with up to 15 % of it hidden.

    Raises:
        ValueError: it is too long for any code, which is about 2,300 bytes.
    """
    code = segno.make_qr(text, error="m", boost_error=False)
    rows = list(code.matrix_iter(border=QUIET))
    dark = [f"M{x} {y}h1v1h-1z" for y, row in enumerate(rows) for x, module in enumerate(row) if module]
    return QrCode(size=len(rows), path="".join(dark))
