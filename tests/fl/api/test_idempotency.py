"""A command that is sent twice under one key is done once."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from datetime import timedelta

import pytest
from django.utils import timezone

from fl import runs
from fl.api.idempotency import Answer, do_once, request_hash
from fl.exceptions import Invalid
from fl.models import EnrollmentToken, IdempotentRequest, Run
from tests.builders import PLAN, person
from tests.fl.api.conftest import error_of
from tests.test_house import ROOT

GIVE_UP_SECONDS = 120

PLAN_BODY = {"name": "a run", "task": "linear"}


def create(client, key, body=PLAN_BODY):
    return client.post("/api/v1/runs/", body, headers={"Idempotency-Key": key})


@pytest.mark.django_db
def test_the_same_request_answers_the_same_and_does_nothing(operator):
    first = create(operator, "k1")
    again = create(operator, "k1")

    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert Run.objects.count() == 1


@pytest.mark.django_db
def test_another_key_is_another_command(operator):
    create(operator, "k1")
    create(operator, "k2")

    assert Run.objects.count() == 2


@pytest.mark.django_db
def test_a_key_is_a_persons_own(operator, admin):
    create(operator, "k1")
    create(admin, "k1")

    assert Run.objects.count() == 2


@pytest.mark.django_db
def test_a_key_with_another_request_answers_409(operator):
    create(operator, "k1")

    response = create(operator, "k1", {**PLAN_BODY, "rounds": 3})

    assert (response.status_code, error_of(response)) == (409, "idempotency_conflict")
    assert Run.objects.count() == 1


@pytest.mark.django_db
def test_a_key_belongs_to_one_address(operator):
    run = runs.create_run(plan=PLAN, created_by=None, now=timezone.now())
    key = {"Idempotency-Key": "k1"}
    operator.post(f"/api/v1/runs/{run.pk}/start/", headers=key)

    response = operator.post(f"/api/v1/runs/{run.pk}/pause/", headers=key)

    assert error_of(response) == "idempotency_conflict"


@pytest.mark.django_db
def test_starting_twice_under_one_key_is_no_wrong_move(operator):
    run = runs.create_run(plan=PLAN, created_by=None, now=timezone.now())
    key = {"Idempotency-Key": "k1"}

    answers = [operator.post(f"/api/v1/runs/{run.pk}/start/", headers=key) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert error_of(operator.post(f"/api/v1/runs/{run.pk}/start/")) == "wrong_move"


@pytest.mark.django_db
def test_an_error_is_not_kept(operator):
    run = runs.create_run(plan=PLAN, created_by=None, now=timezone.now())
    key = {"Idempotency-Key": "k1"}
    assert operator.post(f"/api/v1/runs/{run.pk}/pause/", headers=key).status_code == 409

    runs.start_run(run=run, now=timezone.now())

    assert operator.post(f"/api/v1/runs/{run.pk}/pause/", headers=key).status_code == 200


@pytest.mark.django_db
def test_a_secret_is_told_once_and_never_stored(operator):
    key = {"Idempotency-Key": "k1"}
    first, again = (operator.post("/api/v1/enrollment-tokens/", {}, headers=key).json() for _ in range(2))

    assert first["token"].startswith("qfe1.")
    assert again == {**first, "token": None}
    assert EnrollmentToken.objects.count() == 1
    secret = first["token"].split(".")[2]
    assert secret not in IdempotentRequest.objects.get().answer


@pytest.mark.django_db
def test_a_key_is_free_again_after_a_day():
    user, now = person("ada"), timezone.now()
    done = []

    def command():
        done.append(True)
        return Answer(200, {"count": len(done)})

    def ask(moment):
        return do_once(user=user, key="k", request_hash="h", now=moment, command=command).data["count"]

    assert [ask(now), ask(now + timedelta(hours=23)), ask(now + timedelta(hours=24))] == [1, 1, 2]


@pytest.mark.django_db
@pytest.mark.parametrize("key", ["", "k" * 101, "k\0"])
def test_a_key_has_1_to_100_characters_and_no_nul(key):
    with pytest.raises(Invalid):
        do_once(user=person("ada"), key=key, request_hash="h", now=timezone.now(), command=lambda: Answer(200, {}))


def test_the_order_of_fields_makes_no_other_request():
    assert request_hash("POST", "/x/", {"a": 1, "b": 2}) == request_hash("POST", "/x/", {"b": 2, "a": 1})
    assert request_hash("POST", "/x/", {"a": 1}) != request_hash("POST", "/y/", {"a": 1})


# Both databases, and processes: what keeps two apart is the database alone.


@pytest.fixture(params=["sqlite", "postgresql"])
def environment(request, tmp_path):
    """The environment of a server with a fresh, migrated database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'qflare.sqlite3'}"
    else:
        url = request.getfixturevalue("postgres_database")
    environment = os.environ | {
        "DATABASE_URL": url,
        "QFLARE_DATA_DIR": str(tmp_path),
        "DJANGO_SETTINGS_MODULE": "qflare.settings",
    }
    migrate = [sys.executable, "manage.py", "migrate", "--verbosity=0", "--skip-checks"]
    subprocess.run(migrate, check=True, cwd=ROOT, env=environment)
    return environment


def test_of_two_processes_at_once_one_does_it_and_both_answer_the_same(environment):
    with ExitStack() as stack:
        askers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.fl.api.askers"],
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(2)
        ]
        assert [asker.stdout.readline() for asker in askers] == ["ready\n"] * 2

        for asker in askers:
            asker.stdin.write("go\n")
            asker.stdin.flush()
        answers = [json.loads(asker.communicate(timeout=GIVE_UP_SECONDS)[0]) for asker in askers]

    assert sorted(repeated for _, repeated in answers) == [False, True]
    assert answers[0][0] == answers[1][0]
