"""The server's own key: one, whoever asks first."""

import stat

import pytest

from edge.identity import KeyUnreadable
from fl.server_key import server_key
from tests.fl.threads import at_once


def test_the_key_is_made_at_the_first_call_and_private(settings, tmp_path):
    settings.QFLARE_SERVER_KEY = tmp_path / "key.pem"

    key = server_key()

    assert server_key() is key
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600


def test_threads_that_ask_at_once_get_one_key(settings, tmp_path):
    settings.QFLARE_SERVER_KEY = tmp_path / "key.pem"

    keys = at_once(*[server_key] * 8)

    assert len({key.fingerprint for key in keys}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["key.pem"]


def test_a_key_that_others_can_read_is_refused(settings, tmp_path):
    settings.QFLARE_SERVER_KEY = tmp_path / "key.pem"
    server_key()
    other = tmp_path / "open.pem"
    other.write_bytes((tmp_path / "key.pem").read_bytes())
    other.chmod(0o644)
    settings.QFLARE_SERVER_KEY = other

    with pytest.raises(KeyUnreadable, match="chmod 600"):
        server_key()
