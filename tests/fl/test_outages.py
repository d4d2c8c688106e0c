"""A database that is away or busy is told from a mistake, whichever database it is; requests that meet one say so."""

import sqlite3
from contextlib import closing

import pytest
from django.db import DatabaseError, IntegrityError, InterfaceError, OperationalError, connection
from django.db.utils import ConnectionHandler

from fl.models import Stream
from fl.outages import is_outage
from tests.builders import person
from tests.fl.api.conftest import Client, error_of
from tests.services.ports import free_port


@pytest.fixture
def busy(transactional_db):
    """A database that another process writes to and does not let go; nobody waits for it here."""
    assert connection.vendor == "sqlite"
    user = person("ada", "operator")
    client = Client(raise_request_exception=False)
    client.force_login(user)
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 0")
    with closing(sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield client
    connection.close()


def test_a_database_that_is_locked_is_one(busy):
    with pytest.raises(OperationalError) as caught:
        Stream.objects.create(name="a")

    assert is_outage(caught.value)


def test_a_table_that_is_missing_is_none_though_sqlite_gives_it_the_same_name(db):
    with pytest.raises(DatabaseError) as caught, connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM nothing")

    assert not is_outage(caught.value)


@pytest.mark.django_db
@pytest.mark.parametrize("pool", [False, {"min_size": 1, "timeout": 0.2, "reconnect_timeout": 0.2}])
def test_a_postgresql_that_does_not_answer_is_one(pool):
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "x",
        "HOST": "127.0.0.1",
        "PORT": free_port(),
        "OPTIONS": {"pool": pool},
    }
    away = ConnectionHandler({"default": database})["default"]

    with pytest.raises(OperationalError) as caught:
        away.ensure_connection()

    away.close_pool()
    assert is_outage(caught.value)


def test_what_else_goes_wrong_is_none():
    assert is_outage(InterfaceError("the connection is closed"))
    assert not is_outage(IntegrityError("there is one already"))
    assert not is_outage(ValueError("3"))
    assert not is_outage(None)


def test_a_request_that_meets_one_answers_503_in_the_one_shape_and_says_when_to_try_again(busy):
    response = busy.post("/api/v1/enrollment-tokens/", {"label": "a device"})

    assert (response.status_code, error_of(response)) == (503, "database_away")
    assert response.headers["Retry-After"] == "5"
    assert "try again" in response.json()["error"]["action"]
    assert "locked" not in response.content.decode()


def test_a_page_that_meets_one_says_so_to_people(busy):
    response = busy.post("/logout/")

    assert response.status_code == 503
    assert response.headers["Content-Type"].startswith("text/html")
    assert "try again" in response.content.decode().lower()
    assert "locked" not in response.content.decode()
