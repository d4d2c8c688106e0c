"""What is prepared answers as the query set does that it was made of, each time with other numbers."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from fl.models import Assignment
from fl.prepared import Prepared, PreparedUpdate
from tests.builders import at, fleet, started_run, step

pytestmark = pytest.mark.django_db


@pytest.fixture
def rows():
    """The assignments of a round."""
    fleet(3)
    step(started_run(cohort_size=3))
    return list(Assignment.objects.select_related("round", "device"))


def in_round(round, device):
    return Assignment.objects.filter(round=round, device=device).order_by("cohort_index")


def test_it_makes_the_instances_that_the_query_set_makes(rows):
    prepared = Prepared(in_round)

    found = [prepared.first(round=row.round_id, device=row.device_id) for row in rows]

    assert [vars(one) | {"_state": None} for one in found] == [
        vars(in_round(row.round_id, row.device_id).get()) | {"_state": None} for row in rows
    ]
    assert {one._state.db for one in found} == {"default"}
    assert not any(one._state.adding for one in found)


def test_related_instances_come_along_and_what_was_left_out_comes_when_asked_for(rows):
    prepared = Prepared(
        lambda pk: (
            Assignment.objects.filter(pk=pk)
            .select_related("round__run", "device")
            .only("round_id", "device_id", "state", "device__name", "round__number", "round__run__task")
        )
    )
    found = [prepared.first(pk=row.pk) for row in rows]

    with CaptureQueriesContext(connection) as asked:
        seen = [(one.pk, one.device.name, one.round.number, one.round.run.task) for one in found]

    assert seen == [(row.pk, row.device.name, row.round.number, row.round.run.task) for row in rows]
    assert len(asked) == 0
    assert [one.assigned_at for one in found] == [row.assigned_at for row in rows]


def test_values_come_as_the_query_set_gives_them(rows):
    def of_round(round):
        return Assignment.objects.filter(round=round).order_by("-cohort_index").values_list("assigned_at", "progress")

    prepared = Prepared(of_round)

    assert prepared.all(round=rows[0].round_id) == list(of_round(rows[0].round_id))
    assert len(prepared.all(round=rows[0].round_id)) == 3


def test_where_there_is_no_row_there_is_none(rows):
    prepared = Prepared(in_round)
    assert prepared.first(round=rows[0].round_id, device=rows[0].device_id) is not None

    assert prepared.first(round=rows[0].round_id, device=2**40) is None
    assert prepared.all(round=-1, device=rows[0].device_id) == []


def test_the_orm_writes_it_once_and_each_question_is_one_query(rows):
    built = []

    def build(pk):
        built.append(pk)
        return Assignment.objects.filter(pk=pk)

    prepared = Prepared(build)
    with CaptureQueriesContext(connection) as asked:
        found = [prepared.first(pk=row.pk).pk for row in rows]

    assert found == [row.pk for row in rows]
    assert len(built) == 1
    assert len(asked) == 3


def test_an_update_changes_what_the_query_set_would_and_says_how_many(rows):
    first, second, _ = rows
    update = PreparedUpdate(
        lambda pk: Assignment.objects.filter(pk=pk, state="assigned"), "state", "progress_at", "loss"
    )

    found = [
        update({"state": "training", "progress_at": at(3), "loss": 0.5}, pk=first.pk),
        update({"state": "uploading", "progress_at": at(4), "loss": None}, pk=second.pk),
        update({"state": "failed", "progress_at": at(5), "loss": 0.5}, pk=second.pk),
        update({"state": "failed", "progress_at": at(5), "loss": 0.5}, pk=2**40),
    ]

    assert found == [1, 1, 0, 0]
    kept = Assignment.objects.order_by("cohort_index").values_list("state", "progress_at", "loss")
    assert list(kept) == [("training", at(3), 0.5), ("uploading", at(4), None), ("assigned", None, None)]
