"""What every test of the server's core may use: folders of its own, and a way to hold a moment still."""

import pytest


@pytest.fixture(scope="session")
def server_key_file(tmp_path_factory):
    """Where the server's key lies for all tests of a run: making one takes time."""
    return tmp_path_factory.mktemp("server") / "server-key.pem"


@pytest.fixture(autouse=True)
def folders_of_its_own(settings, tmp_path, server_key_file):
    """Files go to the test's own folder, never to that of the checkout."""
    settings.MEDIA_ROOT = tmp_path / "files"
    settings.QFLARE_SERVER_KEY = server_key_file
