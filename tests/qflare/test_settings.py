"""The settings as an environment makes them, each read by a process of its own."""

import json
import os
import stat
import subprocess
import sys

import pytest

from tests.test_house import ROOT

SCRIPT = """
import json, sys
from qflare import settings
print(json.dumps({name: getattr(settings, name) for name in sys.argv[1:]}, default=str))
"""


@pytest.fixture
def read(tmp_path):
    """Read settings in a process with a data folder of its own; raise with its words if it will not start."""

    def settings(*names, **environment):
        own = {
            name: value for name, value in os.environ.items() if not name.startswith(("QFLARE_", "DATABASE_", "REDIS_"))
        }
        result = subprocess.run(
            [sys.executable, "-c", SCRIPT, *names],
            cwd=ROOT,
            env=own | {"QFLARE_DATA_DIR": str(tmp_path / "data")} | environment,
            capture_output=True,
            text=True,
        )
        if result.returncode:
            raise RuntimeError(result.stderr)
        return json.loads(result.stdout)

    return settings


def test_without_an_environment_it_is_one_process_with_sqlite_and_closed_to_strangers(read, tmp_path):
    found = read(
        "DATABASES", "CHANNEL_LAYERS", "DEBUG", "ALLOWED_HOSTS", "QFLARE_ALLOWED_ORIGINS", "QFLARE_PUBLIC_DASHBOARD"
    )

    database = found["DATABASES"]["default"]
    assert database["ENGINE"] == "django.db.backends.sqlite3"
    assert database["NAME"] == str(tmp_path / "data" / "qflare.sqlite3")
    assert database["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert "journal_mode=WAL" in database["OPTIONS"]["init_command"]
    assert "MemoryChannelLayer" in found["CHANNEL_LAYERS"]["default"]["BACKEND"]
    assert found["DEBUG"] is False
    assert found["ALLOWED_HOSTS"] == ["localhost", "127.0.0.1", "[::1]"]
    assert found["QFLARE_ALLOWED_ORIGINS"] == []
    assert found["QFLARE_PUBLIC_DASHBOARD"] is False


def test_postgresql_and_redis_are_chosen_by_their_addresses(read):
    found = read(
        "DATABASES",
        "CHANNEL_LAYERS",
        DATABASE_URL="postgres://ada:word@db.example:5433/learning",
        REDIS_URL="redis://cache.example:6380/1",
    )

    database = found["DATABASES"]["default"]
    assert (database["ENGINE"], database["HOST"], database["PORT"], database["NAME"]) == (
        "django.db.backends.postgresql",
        "db.example",
        5433,
        "learning",
    )
    assert database["OPTIONS"]["pool"]
    assert "transaction_mode" not in database["OPTIONS"]
    layer = found["CHANNEL_LAYERS"]["default"]
    # Kept alive by the system, a subscription that the system ends would hang the process.
    assert layer["CONFIG"]["hosts"] == [{"address": "redis://cache.example:6380/1", "socket_keepalive": False}]
    assert "pubsub" in layer["BACKEND"]


def test_a_connection_to_a_postgresql_that_is_not_heard_of_is_given_up(read):
    def options(query="", **environment):
        found = read("DATABASES", DATABASE_URL=f"postgres://db.example/learning{query}", **environment)
        return found["DATABASES"]["default"]["OPTIONS"]

    silent = options()
    scaled = options("?keepalives_idle=30", QFLARE_DATABASE_WAIT_SECONDS="0.5")

    assert (silent["connect_timeout"], silent["tcp_user_timeout"]) == (5, 5000)
    assert (silent["keepalives_idle"], silent["keepalives_interval"]) == (5, 5)
    assert (scaled["connect_timeout"], scaled["tcp_user_timeout"]) == (1, 500)
    assert (int(scaled["keepalives_idle"]), scaled["keepalives_interval"]) == (30, 1)


def test_redis_may_be_used_by_the_core_layer(read):
    found = read(
        "CHANNEL_LAYERS",
        REDIS_URL="redis://cache.example/0",
        QFLARE_CHANNEL_LAYER="core",
        QFLARE_GROUP_EXPIRY_SECONDS="120",
    )

    layer = found["CHANNEL_LAYERS"]["default"]
    assert "core" in layer["BACKEND"]
    assert layer["CONFIG"]["group_expiry"] == 120
    # It blocks for 5 s in one command.
    assert layer["CONFIG"]["hosts"][0]["socket_timeout"] > 5


@pytest.mark.parametrize("layer", ["pubsub", "core"])
def test_names_on_redis_are_those_of_the_installation(read, layer):
    redis = {"REDIS_URL": "redis://cache.example/0", "QFLARE_CHANNEL_LAYER": layer}

    def prefix(**environment):
        found = read("QFLARE_REDIS_PREFIX", "CHANNEL_LAYERS", **redis, **environment)
        assert found["CHANNEL_LAYERS"]["default"]["CONFIG"]["prefix"] == found["QFLARE_REDIS_PREFIX"]
        return found["QFLARE_REDIS_PREFIX"]

    assert prefix(QFLARE_SECRET_KEY="a") == prefix(QFLARE_SECRET_KEY="a") != prefix(QFLARE_SECRET_KEY="b")
    assert prefix(QFLARE_REDIS_PREFIX="mine") == "mine"


@pytest.mark.parametrize("url", ["", "redis://cache.example/0"])
def test_a_layer_that_is_none_or_lacks_its_redis_is_refused(read, url):
    with pytest.raises(RuntimeError, match="BadSetting: QFLARE_CHANNEL_LAYER"):
        read("CHANNEL_LAYERS", REDIS_URL=url, QFLARE_CHANNEL_LAYER="pubsub" if not url else "kafka")


def test_a_secret_key_is_made_once_and_kept_private(read, tmp_path):
    first = read("SECRET_KEY")
    second = read("SECRET_KEY")

    kept = tmp_path / "data" / "secret-key"
    assert first == second == {"SECRET_KEY": kept.read_text()}
    assert len(kept.read_text()) >= 50
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_secret_key_may_be_given_or_stand_in_a_file(read, tmp_path):
    path = tmp_path / "mounted"
    path.write_text("from a file\n")

    assert read("SECRET_KEY", QFLARE_SECRET_KEY="given") == {"SECRET_KEY": "given"}
    assert read("SECRET_KEY", QFLARE_SECRET_KEY_FILE=str(path)) == {"SECRET_KEY": "from a file"}
    assert not (tmp_path / "data" / "secret-key").exists()


def test_origins_govern_cors_and_csrf(read):
    found = read(
        "CORS_ALLOWED_ORIGINS",
        "CSRF_TRUSTED_ORIGINS",
        "CORS_ALLOW_ALL_ORIGINS",
        QFLARE_ALLOWED_ORIGINS="https://a.example, https://b.example",
    )

    assert found["CORS_ALLOWED_ORIGINS"] == ["https://a.example", "https://b.example"]
    assert found["CSRF_TRUSTED_ORIGINS"] == found["CORS_ALLOWED_ORIGINS"]
    assert found["CORS_ALLOW_ALL_ORIGINS"] is False


def test_every_origin_is_allowed_for_development_only(read):
    with pytest.raises(RuntimeError, match="list the origins instead"):
        read("DEBUG", QFLARE_ALLOWED_ORIGINS="*")

    found = read("CORS_ALLOWED_ORIGINS", "CSRF_TRUSTED_ORIGINS", QFLARE_ALLOWED_ORIGINS="*", QFLARE_DEBUG="1")
    assert found == {"CORS_ALLOWED_ORIGINS": [], "CSRF_TRUSTED_ORIGINS": []}


def test_behind_tls_cookies_travel_by_tls_only(read):
    names = ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SESSION_COOKIE_HTTPONLY")

    assert read(*names) == dict(zip(names, (False, False, True), strict=True))
    assert read(*names, QFLARE_BEHIND_TLS="1") == dict.fromkeys(names, True)


def test_proxies_are_believed_where_they_are_listed_and_behind_tls_those_on_this_machine(read):
    name = "QFLARE_TRUSTED_PROXIES"

    assert read(name) == {name: []}
    assert read(name, QFLARE_BEHIND_TLS="1") == {name: ["127.0.0.1/32", "::1/128"]}
    assert read(name, QFLARE_BEHIND_TLS="1", QFLARE_TRUSTED_PROXIES="10.0.0.0/8") == {name: ["10.0.0.0/8"]}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("QFLARE_DEBUG", "perhaps"),
        ("QFLARE_CLOCK_SECONDS", "0"),
        ("QFLARE_LEASE_SECONDS", "soon"),
        ("QFLARE_MAX_CONNECTIONS", "-1"),
        ("QFLARE_TRUSTED_PROXIES", "proxy.example"),
        ("QFLARE_SECRET_KEY_FILE", "/nowhere/secret"),
        ("QFLARE_RETURN_AFTER_SECONDS", "11"),
        ("QFLARE_REDIS_PREFIX", "a b"),
    ],
)
def test_a_wrong_value_stops_the_start_and_is_named(read, name, value):
    with pytest.raises(RuntimeError, match=f"BadSetting: {name}"):
        read("DEBUG", **{name: value})


def test_durations_and_limits_come_from_the_environment(read):
    found = read(
        "QFLARE_CLAIM_SECONDS",
        "QFLARE_TORCH_THREADS",
        "QFLARE_PRESENCE_GRACE_SECONDS",
        QFLARE_CLAIM_SECONDS="2.5",
        QFLARE_TORCH_THREADS="4",
        QFLARE_PRESENCE_GRACE_SECONDS="0",
    )

    assert found == {"QFLARE_CLAIM_SECONDS": 2.5, "QFLARE_TORCH_THREADS": 4, "QFLARE_PRESENCE_GRACE_SECONDS": 0}
