"""Combinations that cannot work are refused before the server starts, and doubtful ones told of."""

from datetime import timedelta
from pathlib import Path

import pytest
from django.core import checks
from django.utils import timezone

from realtime import checks as ours
from realtime.models import ServerProcess
from realtime.process import this_process
from realtime.statistics import lease
from tests.realtime.layers import CORE
from tests.realtime.sockets import Socket

REDIS = {"default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": []}}}


def found():
    return {message.id: message for message in checks.run_checks() if message.id.startswith("realtime.")}


def test_the_defaults_pass():
    assert found() == {}


@pytest.mark.parametrize("name", [":memory:", "file:x?mode=memory&cache=shared", ""])
def test_a_database_in_memory_is_refused(monkeypatch, name):
    monkeypatch.setattr(ours, "_database", lambda: {"ENGINE": "django.db.backends.sqlite3", "NAME": name})

    error = found()["realtime.E001"]

    assert error.level == checks.ERROR
    assert "DATABASE_URL" in error.hint


@pytest.mark.parametrize("name", ["QFLARE_HEARTBEAT_SECONDS", "QFLARE_PONG_SECONDS"])
def test_pings_that_do_not_fit_the_heartbeat_are_told_of(settings, name):
    setattr(settings, name, settings.QFLARE_PING_SECONDS)

    assert "QFLARE_PING_SECONDS" in found()["realtime.W003"].hint


def test_several_workers_with_a_layer_in_memory_are_refused(settings, monkeypatch):
    monkeypatch.setenv("WEB_CONCURRENCY", "2")

    assert "REDIS_URL" in found()["realtime.E002"].hint
    settings.CHANNEL_LAYERS = REDIS
    assert found() == {}


def test_a_layer_that_forgets_members_before_they_join_again_is_refused(settings):
    core = {"BACKEND": CORE, "CONFIG": {"hosts": [], "group_expiry": 30}}
    settings.CHANNEL_LAYERS = {"default": core}

    settings.QFLARE_REJOIN_SECONDS = 30
    assert "QFLARE_REJOIN_SECONDS" in found()["realtime.E003"].hint
    settings.QFLARE_REJOIN_SECONDS = 10
    assert found() == {}


@pytest.mark.parametrize("workers", ["1", "", "many"])
def test_one_worker_needs_no_other_layer(monkeypatch, workers):
    monkeypatch.setenv("WEB_CONCURRENCY", workers)

    assert found() == {}


def test_sqlite_on_a_network_folder_is_told_of(monkeypatch, tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/sda1 / ext4 rw 0 0\nserver:/x /mnt/shared nfs4 rw 0 0\n")
    monkeypatch.setattr(ours, "MOUNTS", mounts)
    for folder, ids in (("/mnt/shared/qflare", {"realtime.W001"}), ("/mnt/sharedness", set())):
        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(folder) / "qflare.sqlite3"}
        monkeypatch.setattr(ours, "_database", lambda database=database: database)

        assert set(found()) == ids


def test_a_proxy_that_is_not_believed_is_told_of(settings):
    settings.QFLARE_BEHIND_TLS = True
    settings.QFLARE_TRUSTED_PROXIES = []

    assert "QFLARE_TRUSTED_PROXIES" in found()["realtime.W002"].hint


async def test_another_process_that_the_layer_does_not_reach_is_told_of_once(loop, settings, caplog):
    import asyncio

    settings.QFLARE_PUBLIC_DASHBOARD = True
    await (await Socket("/ws/dashboard").connect()).opened()
    now = timezone.now()

    def another(instance, until):
        ServerProcess.objects.create(instance=instance, started_at=now, heard_at=now, lease_until=until)

    await asyncio.to_thread(another, "dead", now - timedelta(seconds=1))
    await this_process().write_statistics()
    assert "REDIS_URL" not in caplog.text

    await asyncio.to_thread(another, "elsewhere-1", now + lease())
    for _ in range(2):
        await this_process().write_statistics()

    assert caplog.text.count("elsewhere-1 serves from the same database") == 1
