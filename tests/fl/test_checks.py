"""What is checked before the server starts."""

import pytest

from fl.checks import heartbeat_fits_the_lease


@pytest.mark.parametrize(("lease", "heartbeat", "fits"), [(150, 60, True), (120, 60, True), (119, 60, False)])
def test_a_lease_outlasts_two_heartbeats(settings, lease, heartbeat, fits):
    settings.QFLARE_LEASE_SECONDS = lease
    settings.QFLARE_HEARTBEAT_SECONDS = heartbeat

    errors = heartbeat_fits_the_lease(None)

    assert [error.id for error in errors] == ([] if fits else ["fl.E001"])
    if errors:
        assert "119" in errors[0].msg
        assert "QFLARE_LEASE_SECONDS" in errors[0].hint


def test_the_defaults_pass():
    assert heartbeat_fits_the_lease(None) == []
