"""What the API's tests begin with: people who are signed in, devices with tokens."""

from base64 import b64encode

import pytest
from django.core.cache import cache
from django.test import Client as DjangoClient
from django.utils import timezone

from edge.identity import UPDATE_CONTEXT
from edge.protocol.http import MANIFEST_HEADER, SIGNATURE_HEADER
from fl import devices
from tests.builders import current_round, fleet, person, started_run, step


class Client(DjangoClient):
    """A browser's `fetch`: what it posts is JSON."""

    def post(self, path, data=None, content_type="application/json", **extra):
        return super().post(path, {} if data is None else data, content_type=content_type, **extra)


@pytest.fixture(autouse=True)
def forgotten_refusals():
    """What throttles count begins anew."""
    cache.clear()


@pytest.fixture
def anybody():
    return Client()


@pytest.fixture
def signed_in(db):
    """Return a client of a person with a role, made at its first use."""
    clients = {}

    def of(role):
        if role not in clients:
            clients[role] = Client()
            clients[role].force_login(person(role or "nobody", role))
        return clients[role]

    return of


@pytest.fixture
def viewer(signed_in):
    return signed_in("viewer")


@pytest.fixture
def operator(signed_in):
    return signed_in("operator")


@pytest.fixture
def admin(signed_in):
    return signed_in("admin")


@pytest.fixture
def training(db):
    """A run of two devices whose first round is training, and the devices."""
    now = timezone.now()
    participants = fleet(2, now=now)
    run = started_run(now)
    step(run, now)
    assert current_round(run).state == "training"
    return run, participants


@pytest.fixture
def incoming(settings):
    """Return the files that are still on their way."""
    return lambda: list((settings.MEDIA_ROOT / "incoming").glob("*"))


def bearer(participant, now=None):
    """Return the header by which a device shows who it is."""
    token = devices.access_token(device=participant.device, now=now or timezone.now())
    return {"Authorization": f"Bearer {token.token}"}


def signed(participant, manifest, signature=None):
    """Return the headers of an update."""
    signature = participant.key.sign(manifest, UPDATE_CONTEXT) if signature is None else signature
    return {
        MANIFEST_HEADER: b64encode(manifest).decode(),
        SIGNATURE_HEADER: b64encode(signature).decode(),
        **bearer(participant),
    }


def error_of(response):
    """Return the code of an error, having checked its shape."""
    body = response.json()
    assert set(body) == {"error"}, body
    assert set(body["error"]) == {"code", "message", "action"}
    assert body["error"]["message"]
    return body["error"]["code"]
