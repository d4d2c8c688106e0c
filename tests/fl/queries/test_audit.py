"""The audit log as it is read: newest first, filtered, and exported in pieces."""

from datetime import timedelta

import pytest

from fl.models import AuditEntry
from fl.models.audit import Act, Door
from fl.queries import audit
from fl.queries.audit import Wanted
from tests.builders import NOW, at, person

pytestmark = pytest.mark.django_db


@pytest.fixture
def entries():
    """Four entries, oldest first, a second apart."""
    ada, eve = person("ada"), person("eve")
    made = [
        (ada, Act.RUN_CREATE, "r-0001 winter"),
        (eve, Act.RUN_PAUSE, "r-0001 winter"),
        (ada, Act.RUN_CREATE, "r-0002 Summer_1"),
        (None, Act.PERSON_SIGN_IN_FAILED, "ada"),
    ]
    return [
        AuditEntry.objects.create(
            at=at(number),
            person=by,
            person_name=by.username if by else "",
            act=act,
            subject=subject,
            door=Door.REST,
            address="192.0.2.7",
        )
        for number, (by, act, subject) in enumerate(made)
    ]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(), [3, 2, 1, 0]),
        (Wanted(person="ada"), [2, 0]),
        (Wanted(person="ad"), []),
        (Wanted(act="run.create"), [2, 0]),
        (Wanted(subject="WINTER"), [1, 0]),
        (Wanted(subject="summer_"), [2]),
        (Wanted(subject="_inter"), []),
        (Wanted(since=at(1)), [3, 2, 1]),
        (Wanted(until=at(1)), [0]),
        (Wanted(person="ada", act="run.create", subject="r-0001", since=at(0), until=at(1)), [0]),
    ],
)
def test_what_is_wanted_is_found_newest_first(entries, wanted, found):
    assert list(audit.entries_for(wanted)) == [entries[number] for number in found]


def test_a_page_knows_how_many_there_are_and_who_could_be_looked_for(entries):
    page = audit.audit_page(Wanted(act="run.create"), offset=1, limit=1)

    assert page.entries == [entries[0]]
    assert page.total == 2
    assert page.people == ["ada", "eve"]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_an_export_is_whole_however_large_its_pieces_are(entries, monkeypatch, size):
    monkeypatch.setattr(audit, "EXPORTED_AT_ONCE", size)

    rows = list(audit.exported(Wanted()))

    assert [row["id"] for row in rows] == [entry.pk for entry in reversed(entries)]


def test_what_is_noted_during_an_export_is_not_in_it_and_shifts_nothing(entries, monkeypatch):
    monkeypatch.setattr(audit, "EXPORTED_AT_ONCE", 2)
    export = audit.exported(Wanted())

    first = next(export)
    AuditEntry.objects.create(at=NOW + timedelta(days=1), act=Act.RUN_STOP, door=Door.PAGE)
    rest = list(export)

    assert [row["id"] for row in [first, *rest]] == [entry.pk for entry in reversed(entries)]


def test_a_row_has_every_column(entries):
    (row,) = audit.exported(Wanted(act="run.pause"))

    assert tuple(row) == audit.COLUMNS
    assert (row["at"], row["person"], row["address"]) == ("2030-01-01T12:00:01+00:00", "eve", "192.0.2.7")
