"""Settings from the environment: typed, loud about what they cannot be, and one secret for processes that race."""

import stat
import threading

import pytest

from qflare.env import BadSetting, env_bool, env_list, env_number, env_str, text_kept_in

# ── values ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", ["1", "true", "TRUE", "yes", "on"])
def test_words_for_true(text):
    assert env_bool("X", False, {"X": text}) is True


@pytest.mark.parametrize("text", ["0", "false", "No", "off", ""])
def test_words_for_false(text):
    assert env_bool("X", True, {"X": text}) is False


@pytest.mark.parametrize("default", [True, False])
def test_a_truth_that_is_not_set_is_its_default(default):
    assert env_bool("X", default, {}) is default


@pytest.mark.parametrize("text", ["maybe", "2", "tru"])
def test_a_truth_that_is_none_is_named_with_what_it_may_be(text):
    with pytest.raises(BadSetting, match=f"X='{text}': must be one of 1, true"):
        env_bool("X", False, {"X": text})


def test_a_number_lies_within_its_range():
    assert env_number("X", 5, 1, 10, {}) == 5
    assert env_number("X", 5, 1, 10, {"X": "1"}) == 1
    assert env_number("X", 5, 1, 10, {"X": "2.5"}) == 2.5
    assert env_number("X", 5, 1, 10, {"X": "10"}) == 10


@pytest.mark.parametrize("text", ["0.99", "10.01", "-1", "nan", "inf", "1e9"])
def test_a_number_outside_its_range_is_refused_with_the_range(text):
    with pytest.raises(BadSetting, match=f"X={text}: must be between 1 and 10"):
        env_number("X", 5, 1, 10, {"X": text})


@pytest.mark.parametrize("text", ["", "five", "1,5"])
def test_a_number_that_is_none_is_refused(text):
    with pytest.raises(BadSetting, match="must be a number"):
        env_number("X", 5, 1, 10, {"X": text})


def test_a_list_has_no_blanks():
    assert env_list("X", "", {"X": " a, b ,,c,"}) == ["a", "b", "c"]
    assert env_list("X", "a,b", {}) == ["a", "b"]
    assert env_list("X", "a,b", {"X": ""}) == []


# ── texts and secrets ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_text_may_stand_in_a_file(tmp_path):
    path = tmp_path / "secret"
    path.write_text("from the file\n")

    assert env_str("X", "", {"X_FILE": str(path)}) == "from the file"
    assert env_str("X", "", {"X": "set", "X_FILE": str(path)}) == "set"
    assert env_str("X", "default", {}) == "default"


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(BadSetting, match="X_FILE names a file that cannot be read"):
        env_str("X", "", {"X_FILE": str(tmp_path / "missing")})


def test_a_kept_text_is_made_once_and_private(tmp_path):
    path = tmp_path / "new" / "secret"

    first = text_kept_in(path, lambda: "made")
    second = text_kept_in(path, lambda: "made again")

    assert (first, second) == ("made", "made")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_who_comes_while_a_text_is_being_made_gets_the_same_whole_text(tmp_path):
    path = tmp_path / "secret"
    making, may_go_on = threading.Event(), threading.Event()
    got = {}

    def slowly():
        making.set()
        assert may_go_on.wait(30)
        return "the slow one's"

    first = threading.Thread(target=lambda: got.update(slow=text_kept_in(path, slowly)))
    first.start()
    assert making.wait(30)
    got["quick"] = text_kept_in(path, lambda: "the quick one's")
    may_go_on.set()
    first.join()

    assert got["quick"] == got["slow"] == path.read_text() != ""
    assert list(tmp_path.iterdir()) == [path]


def test_a_making_that_fails_leaves_nothing_behind(tmp_path):
    path = tmp_path / "secret"

    with pytest.raises(ZeroDivisionError):
        text_kept_in(path, lambda: str(1 / 0))

    assert text_kept_in(path, lambda: "made") == "made"


def test_a_data_folder_that_cannot_be_written_to_is_named_with_what_to_set(tmp_path):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(BadSetting, match="set QFLARE_DATA_DIR"):
        text_kept_in(tmp_path / "file" / "secret", lambda: "made")
