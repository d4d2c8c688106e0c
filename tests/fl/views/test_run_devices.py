"""Who took part in a run: the map and the table are true, and take no more for many rounds."""

import pytest
from django.urls import reverse

from fl.models import Device
from fl.queries import participation as queries
from fl.roles import Role
from fl.views.heat_map import KINDS
from fl.visibility import Principal
from tests.builders import fleet, started_run, step
from tests.fl.views.answers import after_one_round, text_of
from tests.fl.views.counting import queries_of
from tests.fl.views.long_runs import long_run, state_of_part

pytestmark = pytest.mark.django_db


def participation(run, **options):
    return queries.participation(Principal(role=Role.VIEWER), run.pk, **options)


def test_every_cell_is_how_the_devices_part_of_the_round_ended():
    run = long_run(rounds=30, devices=4)

    found = participation(run)

    letters = queries.LETTERS
    for index, device in enumerate(found.devices):
        ends = [letters[state_of_part(number, index)] for number in range(1, 31)]
        assert found.cells[device.device_id] == "".join(ends)


def test_the_table_counts_the_ends_of_each_device_over_all_rounds():
    run = long_run(rounds=30, devices=4)

    for index, device in enumerate(participation(run).devices):
        ends = [state_of_part(number, index) for number in range(1, 31)]
        assert device.selected == 30
        assert (device.accepted, device.late) == (ends.count("accepted"), ends.count("late"))
        assert (device.rejected, device.failed) == (ends.count("rejected"), ends.count("failed"))
        assert device.examples == 40 * ends.count("accepted")
        assert device.median_seconds == pytest.approx(2 * (index + 1), abs=0.01)


def test_the_median_of_an_even_number_of_times_lies_between_the_two_in_the_middle():
    run = long_run(rounds=2, devices=1)
    part = run.round_set.get(number=2).assignments.get()
    part.ended_at = part.assigned_at + 5 * (part.ended_at - part.assigned_at)
    part.save()

    (device,) = participation(run).devices

    assert device.median_seconds == pytest.approx((2 + 10) / 2, abs=0.01)


def test_rounds_since_the_last_one_are_counted_up_to_the_newest_round():
    run = long_run(rounds=9, devices=2)
    run.round_set.get(number=9).assignments.filter(cohort_index=1).delete()
    run.round_set.get(number=8).assignments.filter(cohort_index=1).delete()

    assert [device.since for device in participation(run).devices] == [0, 2]


def test_parts_that_are_not_over_are_in_progress_and_rounds_without_a_device_are_empty():
    fleet(2)
    run = started_run()
    step(run)

    found = participation(run)

    assert set(found.cells.values()) == {queries.IN_PROGRESS}
    assert [device.median_seconds for device in found.devices] == [None, None]


def test_at_most_a_hundred_rounds_are_shown_the_newest_first_and_earlier_ones_by_from():
    run = long_run(rounds=250, devices=1)

    assert [(found.first, found.last) for found in (participation(run), participation(run, first=51))] == [
        (151, 250),
        (51, 150),
    ]
    assert [participation(run, first=first).first for first in (0, 999)] == [1, 250]


def test_the_map_leads_to_earlier_and_later_rounds(viewer):
    run = long_run(rounds=250, devices=1)
    address = reverse("run-devices", args=[run.pk])

    newest = viewer.get(address).content.decode()
    earlier = viewer.get(address, {"from": 51, "sort": "-failed"}).content.decode()

    assert 'href="?from=51"' in newest
    assert "Later rounds" not in newest
    assert "?from=1&amp;sort=-failed" in earlier or "?sort=-failed&amp;from=1" in earlier
    assert 'href="?from=151&amp;sort=-failed"' in earlier or 'href="?sort=-failed&amp;from=151"' in earlier


@pytest.mark.parametrize("key", queries.SORTS)
def test_devices_are_sorted_by_each_column_both_ways(key):
    run = long_run(rounds=13, devices=5)
    run.round_set.get(number=13).assignments.filter(cohort_index=0).delete()

    up = [queries.SORTS[key](device) for device in participation(run, sort=key).devices]
    down = [queries.SORTS[key](device) for device in participation(run, sort=key, descending=True).devices]

    assert up == sorted(up)
    assert down == sorted(down, reverse=True)


def test_the_sorted_column_says_so_and_an_unknown_one_is_the_name(viewer):
    run = after_one_round()
    address = reverse("run-devices", args=[run.pk])

    assert (
        'aria-sort="descending"><a href="?sort=failed">Failed'
        in viewer.get(address, {"sort": "-failed"}).content.decode()
    )
    for wrong in ("bogus", "--name", "-"):
        page = viewer.get(address, {"sort": wrong, "from": "x", "page": "x"}).content.decode()
        assert 'aria-sort="ascending"><a href="?sort=-name">Device' in page


def test_the_map_has_a_legend_a_summary_and_a_table_that_says_the_same(viewer):
    run = long_run(rounds=10, devices=2)

    response = viewer.get(reverse("run-devices", args=[run.pk]))

    page = text_of(response)
    assert all(kind.word.word in page for kind in KINDS)
    assert (
        'role="img" aria-label="Parts of 2 devices in rounds 1 to 10: 14 received, 2 late' in response.content.decode()
    )
    assert f'href="/devices/{Device.objects.get(name="device-000").pk}/"' in response.content.decode()


def test_before_a_device_is_selected_the_map_says_so(viewer):
    assert "No device has been selected yet." in text_of(viewer.get(reverse("run-devices", args=[started_run().pk])))


def test_a_thousand_rounds_of_twenty_devices_take_as_many_queries_and_nodes_as_ten_of_two(viewer):
    few = long_run(rounds=10, devices=2)
    many = long_run(rounds=1000, devices=20, prefix="other")
    small, large = (reverse("run-devices", args=[run.pk]) for run in (few, many))

    taken = [queries_of(viewer, address) for address in (small, large)]
    paths = [viewer.get(address).content.decode().count("<path") for address in (small, large)]

    assert taken[0] == taken[1]
    assert taken[1] <= 12
    assert paths[1] <= paths[0]
