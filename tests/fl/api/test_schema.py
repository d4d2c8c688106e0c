"""The API's document is whole and true, and its page comes from this server alone."""

import json

import pytest
from django.core.management import call_command
from django.urls import get_resolver
from drf_spectacular.generators import SchemaGenerator

from fl.payloads import UPDATE_PATH, WEIGHTS_PATH

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def document():
    return SchemaGenerator().get_schema(request=None, public=True)


def operations(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_the_document_is_made_without_a_warning_and_is_valid(tmp_path):
    call_command("spectacular", "--fail-on-warn", "--validate", "--file", str(tmp_path / "schema.yaml"))


def test_every_operation_says_what_it_does_and_how_it_refuses(document):
    for name, operation in operations(document):
        assert operation.get("description"), name
        refusal = operation["responses"]["4XX"]["content"]["application/json"]["schema"]
        assert refusal == {"$ref": "#/components/schemas/ProblemBody"}, name


def test_every_reference_leads_somewhere(document):
    text = json.dumps(document)
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}

    for part in text.split('"$ref": "')[1:]:
        assert part.split('"')[0] in known


def test_every_address_of_the_api_is_in_the_document(document):
    described = {path.replace("{id}", "{pk}") for path in document["paths"]}
    routes = {_template(route) for route in _routes(get_resolver().url_patterns) if route.startswith("api/v1/")}

    assert len(routes) > 20
    assert routes | {UPDATE_PATH, WEIGHTS_PATH} == described


def test_every_command_takes_an_idempotency_key(document):
    people = [
        (name, operation)
        for name, operation in operations(document)
        if name.startswith("POST") and "/assignments/" not in name and "/enroll/" not in name
    ]

    assert people
    for name, operation in people:
        assert "Idempotency-Key" in [parameter["name"] for parameter in operation.get("parameters", [])], name


def test_viewers_read_the_document_and_its_page(viewer, anybody):
    assert anybody.get("/api/schema/").status_code == 401
    assert anybody.get("/api/docs/").status_code == 302
    assert viewer.get("/api/schema/").status_code == 200

    page = viewer.get("/api/docs/")
    script = viewer.get("/api/docs/?script=")

    assert page.status_code == script.status_code == 200
    assert "/static/drf_spectacular_sidecar/" in page.content.decode()
    assert script.headers["Content-Type"] == "application/javascript"


def test_the_page_may_load_from_this_server_alone(viewer):
    policy = viewer.get("/api/docs/").headers["Content-Security-Policy"]

    assert "script-src 'self';" in policy
    assert "http" not in policy
    assert "unsafe-eval" not in policy


def _routes(patterns, before=""):
    for pattern in patterns:
        route = before + str(pattern.pattern)
        yield from _routes(pattern.url_patterns, route) if hasattr(pattern, "url_patterns") else [route]


def _template(route):
    parts = [f"{{{part[1:-1].split(':')[-1]}}}" if part.startswith("<") else part for part in route.split("/")]
    return "/" + "/".join(parts)
