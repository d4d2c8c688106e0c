"""`manage.py export`: files that others read hold what the run's page has, and what cannot be is one clear message."""

import io
import json
import struct
import sys
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.urls import reverse
from tensorboardX.proto.event_pb2 import Event as TensorBoardEvent

from fl import runs, trash
from fl.models import Round
from qflare.management.commands.export import TENSORBOARD_NEEDS
from tests.builders import at, fleet, person, started_run, step
from tests.fl.views.answers import after_one_round

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).parent.parent.parent


def export(*arguments):
    """Run the command; return what it said."""
    said = io.StringIO()
    call_command("export", *map(str, arguments), stdout=said)
    return said.getvalue()


def scalars_in(folder):
    """Return what the one event file of a folder has: (tag, step) → (value, time)."""
    (path,) = folder.iterdir()
    data, found = path.read_bytes(), {}
    while data:
        # A record is its length, a checksum, itself, and a checksum.
        (length,) = struct.unpack_from("<Q", data)
        event = TensorBoardEvent.FromString(data[12 : 12 + length])
        data = data[16 + length :]
        for value in event.summary.value:
            assert (value.tag, event.step) not in found
            found[value.tag, event.step] = (value.simple_value, event.wall_time)
    return found


def test_tensorboard_reads_each_round_that_has_ended(tmp_path):
    run = after_one_round()

    said = export(run.label, "--tensorboard", tmp_path / "logs")

    found = scalars_in(tmp_path / "logs" / run.label)
    initial, first = (run.models.get(version=version).metrics for version in (0, 1))
    round_ = run.round_set.get(number=1)
    values = {key: value for key, (value, _) in found.items()}
    assert values["loss/server", 0] == pytest.approx(initial["loss"])
    assert values["loss/server", 1] == pytest.approx(first["loss"])
    assert values["accuracy/server", 1] == pytest.approx(first["accuracy"])
    for part, reported in round_.device_metrics["loss"].items():
        assert values[f"loss/devices_{part}", 1] == pytest.approx(reported)
    assert (values["round/updates_received", 1], values["round/updates_lost", 1]) == (2, 0)
    assert values["round/duration_seconds", 1] == pytest.approx((round_.ended_at - round_.started_at).total_seconds())
    # The second round is open.
    assert {number for _, number in found} == {0, 1}
    assert found["loss/server", 0][1] == run.started_at.timestamp()
    assert found["loss/server", 1][1] == round_.ended_at.timestamp()
    assert str(tmp_path / "logs" / run.label) in said


def test_a_round_that_failed_tells_what_it_lost_and_measured_nothing(tmp_path):
    early, _ = fleet(2)
    run = started_run()
    step(run)
    early.send()
    step(run, at(60))

    export(run.pk, "--tensorboard", tmp_path)

    found = scalars_in(tmp_path / run.label)
    assert {tag: value for (tag, number), (value, _) in found.items() if number == 1} == {
        "round/updates_received": 1,
        "round/updates_lost": 1,
        "round/duration_seconds": 60,
    }


def test_an_export_takes_the_place_of_the_one_before_and_of_nothing_else(tmp_path):
    run = after_one_round()
    export(run.pk, "--tensorboard", tmp_path)
    others = tmp_path / run.label / "events.out.tfevents.1.elsewhere"
    others.touch()
    Round.objects.filter(number=1).update(ended_at=at(5))

    export(run.pk, "--tensorboard", tmp_path)

    assert others.exists()
    others.unlink()
    assert scalars_in(tmp_path / run.label)["round/updates_received", 1][1] == at(5).timestamp()


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_file_of_rounds_is_that_of_the_page(client, tmp_path, kind):
    run = after_one_round()
    client.force_login(person("vera", "viewer"))

    export(run.pk, f"--{kind}", tmp_path / "rounds")

    page = client.get(reverse("run-rounds", args=[run.pk]), {"format": kind})
    assert (tmp_path / "rounds").read_bytes() == page.getvalue()


def test_several_files_are_written_at_once(tmp_path):
    run = after_one_round()

    export(run.pk, "--tensorboard", tmp_path, "--csv", tmp_path / "a.csv", "--json", tmp_path / "a.json")

    assert {path.name for path in tmp_path.iterdir()} == {run.label, "a.csv", "a.json"}
    assert [line["number"] for line in json.loads((tmp_path / "a.json").read_text())] == [0, 1, 2]


def test_a_run_that_has_not_begun_has_an_empty_file(tmp_path):
    run = started_run()
    run.models.all().update(published_at=None)

    export(run.pk, "--tensorboard", tmp_path)

    assert scalars_in(tmp_path / run.label) == {}


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    run = started_run()

    with pytest.raises(CommandError, match=rf"(?s)tensorboardX is not installed.*pip install {TENSORBOARD_NEEDS}"):
        export(run.pk, "--tensorboard", tmp_path)

    assert TENSORBOARD_NEEDS in (ROOT / "requirements-dev.txt").read_text().splitlines()


@pytest.mark.parametrize("name", ["r-0999", "999", "winter"])
def test_a_run_that_is_not_there_is_named(tmp_path, name):
    with pytest.raises(CommandError, match=f"there is no run {name}"):
        export(name, "--csv", tmp_path / "rounds.csv")

    assert not (tmp_path / "rounds.csv").exists()


def test_a_run_in_the_trash_is_not_there(tmp_path):
    run = started_run()
    runs.stop_run(run=run, now=at(1))
    trash.move_to_trash(run=run, now=at(2), by=None)

    with pytest.raises(CommandError, match=f"there is no run {run.label}"):
        export(run.label, "--csv", tmp_path / "rounds.csv")


def test_somebody_who_names_no_file_is_told_what_there_is():
    with pytest.raises(CommandError, match="--tensorboard DIR, --csv FILE, --json FILE"):
        export("1")


@pytest.mark.parametrize("kind", ["csv", "json", "tensorboard"])
def test_a_place_that_cannot_be_written_is_one_clear_message(tmp_path, kind):
    (tmp_path / "file").touch()
    run = started_run()

    with pytest.raises(CommandError, match=r"cannot be written: .*file"):
        export(run.pk, f"--{kind}", tmp_path / "file" / "below")
