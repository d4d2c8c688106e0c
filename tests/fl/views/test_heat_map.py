"""The picture of participation: every cell is drawn once, at the place of its round and device."""

import re

from fl.queries.participation import DeviceParts, Participation
from fl.views.heat_map import AIR, HEAD, KINDS, ROW, STEP, heat_map


def parts(device_id):
    return DeviceParts(
        device_id=device_id,
        name=f"device-{device_id}",
        selected=3,
        accepted=1,
        late=0,
        rejected=0,
        failed=0,
        since=0,
        examples=None,
        median_seconds=None,
    )


def drawn(cells, first):
    """Draw devices 1, 2, … with these rows of cells, the first of which is of round `first`."""
    return heat_map(
        Participation(
            head=None,
            devices=[parts(number) for number in range(1, len(cells) + 1)],
            cells=dict(enumerate(cells, start=1)),
            first=first,
            last=first + len(cells[0]) - 1,
            newest=first + len(cells[0]) - 1,
            total=len(cells),
        )
    )


def places(path):
    """Return (column, row) of every cell of a path."""
    corners = re.findall(r"M(\d+) (\d+)h", path)
    return [(int(x) // STEP, (int(y) - HEAD - AIR) // ROW) for x, y in corners]


def test_each_kind_of_cell_is_one_path_over_the_places_of_its_letter():
    found = drawn(["al.", "ra."], first=1)

    by_name = {each.kind.name: each for each in found.drawn}
    assert places(by_name["accepted"].path) == [(0, 0), (1, 1)]
    assert places(by_name["late"].path) == [(1, 0)]
    assert places(by_name["rejected"].path) == [(0, 1)]
    assert places(by_name["none"].path) == [(2, 0), (2, 1)]
    assert sum(each.count for each in found.drawn) == 6
    assert (found.width, found.height) == (3 * STEP, HEAD + 2 * ROW)


def test_the_summary_says_what_the_picture_shows():
    found = drawn(["al.", "ra."], first=41)

    assert found.summary == "Parts of 2 devices in rounds 41 to 43: 2 received, 1 late, 1 rejected, 2 not selected"


def test_every_tenth_round_has_its_number_above_its_column():
    found = drawn(["a" * 15], first=18)

    assert found.ticks == [(2.5 * STEP, 20), (12.5 * STEP, 30)]


def test_kinds_that_share_a_colour_differ_in_their_hatching():
    hatchings = [kind.hatching for kind in KINDS if kind.name not in ("accepted", "none")]

    assert len(set(hatchings)) == len(hatchings)
    assert all(hatchings)
