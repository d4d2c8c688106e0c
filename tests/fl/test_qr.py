"""QR codes: a square with its three finder patterns, and another one for another text."""

import re

from fl.qr import QUIET, qr_code

FINDER = [
    "1111111",
    "1000001",
    "1011101",
    "1011101",
    "1011101",
    "1000001",
    "1111111",
]


def modules(code):
    dark = {(int(x), int(y)) for x, y in re.findall(r"M(\d+) (\d+)h1v1h-1z", code.path)}
    return [["1" if (x, y) in dark else "0" for x in range(code.size)] for y in range(code.size)]


def corner(rows, top, left):
    return ["".join(row[left : left + 7]) for row in rows[top : top + 7]]


def test_a_code_has_a_quiet_zone_and_three_finder_patterns():
    code = qr_code("qfe1.0123456789ab." + "s" * 43 + "." + "f" * 64)

    rows = modules(code)
    far = code.size - QUIET - 7
    assert (code.size - 2 * QUIET - 17) % 4 == 0
    assert all(module == "0" for row in rows[:QUIET] for module in row)
    assert [corner(rows, *place) for place in ((QUIET, QUIET), (QUIET, far), (far, QUIET))] == [FINDER] * 3


def test_another_text_makes_another_code():
    assert qr_code("qfe1.a").path != qr_code("qfe1.b").path
