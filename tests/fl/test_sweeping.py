"""Clearing away: what no row names goes after its time, what a row names stays however old."""

import os
from datetime import timedelta

import pytest
from django.core.files.storage import default_storage
from django.utils import timezone

from fl import files, people, sweeping
from fl.models import IdempotentRequest, SignInCode, Update
from fl.rounds import newest_model
from tests.builders import fleet, person, started_run, step

pytestmark = pytest.mark.django_db


def age(name, seconds):
    """Make a file look so many seconds old; a name is looked for in storage."""
    moment = (timezone.now() - timedelta(seconds=seconds)).timestamp()
    os.utime(files.local_path(name), (moment, moment))


def test_orphans_go_after_the_age_and_younger_ones_stay(settings):
    settings.QFLARE_SWEEP_SECONDS = 3600
    for name in ("models/old", "updates/7/old", "models/.old.partial"):
        files.save_bytes(name, b"x")
        age(name, 3700)
    files.save_bytes("models/young", b"x")
    age("models/young", 3500)

    swept = sweeping.sweep(now=timezone.now())

    assert sorted(swept) == ["models/.old.partial", "models/old", "updates/7/old"]
    assert default_storage.exists("models/young")
    assert not any(default_storage.exists(name) for name in swept)


def test_a_folder_in_which_nothing_has_been_for_long_goes_too(settings):
    settings.QFLARE_SWEEP_SECONDS = 3600
    for name in ("updates/7/gone", "updates/8/gone", "updates/9/kept"):
        files.save_bytes(name, b"x")
    for name in ("updates/7/gone", "updates/8/gone"):
        default_storage.delete(name)
    age("updates/7", 3700)
    age("updates/9", 3700)

    sweeping.sweep(now=timezone.now())

    folders, _ = default_storage.listdir("updates")
    assert sorted(folders) == ["8", "9"]


def test_what_rows_name_stays_however_old():
    senders = fleet(2)
    run = started_run(strategy="fedadam", keep_updates=True)
    step(run)
    for sender in senders:
        sender.send()
    step(run)
    named = {newest_model(run).file, newest_model(run).strategy_state_file}
    named |= set(Update.objects.values_list("file", flat=True))
    assert len(named) == 4
    for path in files.local_path("").rglob("*"):
        if path.is_file():
            age(str(path), 10**6)

    assert sweeping.sweep(now=timezone.now()) == []
    assert all(default_storage.exists(name) for name in named)


def test_files_that_never_arrived_whole_go_too(settings):
    settings.QFLARE_SWEEP_SECONDS = 3600
    old, young = files.ReceivedFile(), files.ReceivedFile()
    for received in (old, young):
        received.write(b"x")
        received.complete()
    age(str(old.path), 3700)

    sweeping.sweep(now=timezone.now())

    assert not old.path.exists()
    assert young.path.exists()


def test_a_file_that_goes_while_the_folder_is_swept_is_no_error():
    folder = files.local_path("models")
    folder.mkdir(parents=True)
    # A link to nowhere is listed and has no age: what a file looks like that went between the two.
    (folder / "gone").symlink_to(folder / "nowhere")
    files.save_bytes("models/old", b"x")
    age("models/old", 10**6)

    assert sweeping.sweep(now=timezone.now()) == ["models/old"]


def test_an_empty_storage_is_swept_without_ado():
    assert sweeping.sweep(now=timezone.now()) == []


def test_old_answers_and_codes_go():
    ada, now = person("ada"), timezone.now()
    for key, hours in (("old", 25), ("young", 23)):
        IdempotentRequest.objects.create(
            user=ada, key=key, request_hash="h", status=200, answer="{}", created_at=now - timedelta(hours=hours)
        )
    people.issue_sign_in_code(user=ada, now=now - timedelta(hours=25))
    people.issue_sign_in_code(user=ada, now=now)

    sweeping.sweep(now=now)

    assert list(IdempotentRequest.objects.values_list("key", flat=True)) == ["young"]
    assert SignInCode.objects.count() == 1
