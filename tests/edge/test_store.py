"""What a device keeps on its disk: whole or not at all, for its owner alone."""

import base64
import os
import stat

import pytest

from edge.config import DeviceSettings, default_home, read_settings, split_command
from edge.errors import BadUsage, HomeUnusable, NotEnrolled
from edge.identity import UPDATE_CONTEXT, SigningKey, verify
from edge.models import CACHED, ModelShelf, WeightsCache
from edge.protocol.http import UpdateManifest
from edge.store import Account, Home, write_file
from edge.tasks import find_task, initial_weights, task_spec
from edge.weights import weights_digest
from edge.wire import encode, read_file

ACCOUNT = Account(
    server="https://learning.example.org",
    server_public_key=base64.b64encode(b"k" * 1952).decode(),
    server_fingerprint="f" * 64,
    device_id=7,
    name="ward-7",
)


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def manifest(number):
    return UpdateManifest(
        algorithm="ML-DSA-65",
        protocol="qflare.v1",
        device_id=7,
        run_id=1,
        round=2,
        assignment_id=number,
        base_digest="b" * 64,
        update_digest="u" * 64,
        size=5,
        num_examples=40,
        metrics={"loss": 0.5},
    )


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def test_key_and_account_are_for_the_owner_alone(home):
    home.make_key()
    home.save_account(ACCOUNT)

    assert mode_of(home.path) == 0o700
    assert mode_of(home.key_path) == 0o600
    assert mode_of(home.account_path) == 0o600
    assert home.account() == ACCOUNT
    assert home.account().server_key == b"k" * 1952


def test_a_key_is_made_once(home):
    assert home.make_key().fingerprint == home.make_key().fingerprint == home.key().fingerprint


def test_a_key_that_others_can_read_is_not_used(home):
    home.make_key()
    home.key_path.chmod(0o644)

    with pytest.raises(HomeUnusable, match="chmod 600"):
        home.key()


def test_a_folder_without_an_account_says_how_to_enrol(home):
    with pytest.raises(NotEnrolled) as caught:
        home.account()

    assert "enroll SERVER" in caught.value.action


def test_a_damaged_account_is_named(home):
    home.save_account(ACCOUNT)
    home.account_path.write_text("{")

    with pytest.raises(HomeUnusable, match=r"device\.json"):
        home.account()


def test_one_process_at_a_time_holds_a_folder(home):
    with home.hold(), pytest.raises(HomeUnusable, match="in use"), Home(home.path).hold():
        pass
    with home.hold():
        pass


def test_a_file_where_the_folder_should_be_is_named(tmp_path):
    (tmp_path / "home").write_text("")

    with pytest.raises(HomeUnusable, match="cannot be written to"), Home(tmp_path / "home").hold():
        pass


def test_a_kept_update_comes_back_exactly_as_it_was_signed(home):
    key = home.make_key()

    kept = home.keep_update(url="/u", manifest=manifest(3), delta=b"delta", key=key)
    (found,) = Home(home.path).pending_updates()

    assert found == kept
    assert found.file.read_bytes() == b"delta"
    assert found.manifest == manifest(3)
    verify(key.public_key, found.signature, found.manifest_bytes, UPDATE_CONTEXT)
    assert mode_of(found.file) == 0o600


def test_pending_updates_come_oldest_first_and_go_when_forgotten(home):
    key = SigningKey.generate()
    for number in (12, 3, 7):
        home.keep_update(url="/u", manifest=manifest(number), delta=b"delta", key=key)

    assert [update.assignment_id for update in home.pending_updates()] == [3, 7, 12]
    for update in home.pending_updates():
        home.forget_update(update)

    assert home.pending_updates() == []
    assert list(home.updates.iterdir()) == []


def test_what_an_interrupted_writer_left_behind_is_no_update(home):
    home.keep_update(url="/u", manifest=manifest(3), delta=b"delta", key=SigningKey.generate())
    (home.updates / "4.safetensors").write_bytes(b"never recorded")
    (home.updates / ".5.safetensors.partial").write_bytes(b"never finished")

    assert [update.assignment_id for update in home.pending_updates()] == [3]
    assert sorted(path.name for path in home.updates.iterdir()) == ["3.json", "3.safetensors"]


def test_a_record_whose_file_did_not_reach_the_disk_is_no_update(home):
    for number in (3, 4):
        home.keep_update(url="/u", manifest=manifest(number), delta=b"delta", key=SigningKey.generate())
    (home.updates / "4.safetensors").unlink()

    assert [update.assignment_id for update in home.pending_updates()] == [3]
    assert sorted(path.name for path in home.updates.iterdir()) == ["3.json", "3.safetensors"]


def test_a_record_that_cannot_be_read_is_named(home):
    home.updates.mkdir(parents=True)
    (home.updates / "3.json").write_text("{}")

    with pytest.raises(HomeUnusable, match=r"3\.json"):
        home.pending_updates()


def test_a_file_is_replaced_whole(tmp_path):
    target = tmp_path / "file"
    write_file(target, b"old")
    old = target.open("rb")

    write_file(target, b"new and longer")

    with old:
        assert old.read() == b"old"
    assert target.read_bytes() == b"new and longer"
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208  # nothing else, hidden or not


LINEAR = find_task("linear")


def source(seed):
    """Weights of a seed: their digest, and what writes them to a file, counting how often."""
    weights = initial_weights(LINEAR, seed)
    calls = []

    def download(path):
        calls.append(path)
        path.write_bytes(encode(weights))

    return weights_digest(weights), download, calls


def test_weights_are_downloaded_once_and_found_again_after_a_restart(home):
    digest, download, calls = source(1)
    cache = WeightsCache(home.weights)

    first = cache.obtain(digest, task_spec(LINEAR), download)
    again = cache.obtain(digest, task_spec(LINEAR), download)
    later = WeightsCache(home.weights).obtain(digest, task_spec(LINEAR), download)

    assert len(calls) == 1
    assert weights_digest(first) == weights_digest(again) == weights_digest(later) == digest


def test_weights_torn_on_the_disk_are_downloaded_again(home):
    digest, download, calls = source(1)
    cache = WeightsCache(home.weights)
    cache.obtain(digest, task_spec(LINEAR), download)
    cache.path(digest).chmod(0o600)
    cache.path(digest).write_bytes(b"torn")

    weights = WeightsCache(home.weights).obtain(digest, task_spec(LINEAR), download)

    assert len(calls) == 2
    assert weights_digest(weights) == digest


def test_the_cache_holds_a_few_and_forgets_the_rest(home):
    cache = WeightsCache(home.weights)
    digests = []
    for seed in range(CACHED + 3):
        digest, download, _ = source(seed)
        cache.obtain(digest, task_spec(LINEAR), download)
        digests.append(digest)

    assert sorted(path.stem for path in home.weights.iterdir()) == sorted(digests[-CACHED:])
    assert cache.held(digests[0]) is None
    assert cache.held(digests[-1]) is not None


def test_a_kept_model_is_replaced_and_says_what_it_is(home):
    cache, shelf = WeightsCache(home.weights), ModelShelf(home.models)
    for version, seed in ((1, 1), (2, 2)):
        digest, download, _ = source(seed)
        cache.obtain(digest, task_spec(LINEAR), download)
        path = shelf.keep(cache, run_id=5, task="linear", version=version, digest=digest)

    assert weights_digest(read_file(path, task_spec(LINEAR))) == digest
    kept = ModelShelf(home.models).kept(5)
    assert (kept.run, kept.task, kept.version, kept.digest) == (5, "linear", 2, digest)
    assert shelf.kept(6) is None


def test_a_model_whose_file_is_gone_counts_as_none(home):
    cache, shelf = WeightsCache(home.weights), ModelShelf(home.models)
    digest, download, _ = source(1)
    cache.obtain(digest, task_spec(LINEAR), download)
    shelf.keep(cache, run_id=5, task="linear", version=1, digest=digest).unlink()

    assert shelf.kept(5) is None


def test_settings_come_from_a_file(tmp_path):
    (tmp_path / "edge.toml").write_text('task = ["linear", "digits"]\nthreads = 2\nmodel = false\n')

    assert read_settings(tmp_path) == {"task": ["linear", "digits"], "threads": 2, "model": False}


def test_no_file_means_no_settings(tmp_path):
    assert read_settings(tmp_path) == {}


@pytest.mark.parametrize("text", ["thraeds = 2", 'threads = "two"', "threads ="])
def test_a_setting_that_cannot_be_followed_is_named(tmp_path, text):
    (tmp_path / "edge.toml").write_text(text)

    with pytest.raises(BadUsage, match=r"edge\.toml") as caught:
        read_settings(tmp_path)

    assert "threads" in caught.value.action


def test_a_command_is_split_without_a_shell():
    assert split_command("notify --text 'new model' $HOME") == ("notify", "--text", "new model", "$HOME")
    assert split_command(None) == ()
    with pytest.raises(BadUsage, match="quotation"):
        split_command("notify 'new")


def test_the_usual_folder_is_among_the_user_s_data():
    assert default_home().name == "qflare-edge"
    assert DeviceSettings().tasks == ("digits",)
