"""The OpenAPI document: what DRF's classes do not say of themselves, and the page that shows it."""

from collections.abc import Mapping
from typing import Any

import msgspec
from django.contrib.auth.mixins import UserPassesTestMixin
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from drf_spectacular.views import SpectacularSwaggerSplitView
from rest_framework.response import Response

from edge.protocol import http
from fl.api.idempotency import KEY_HEADER
from fl.api.streaming import MEDIA_TYPE
from fl.payloads import UPDATE_PATH, WEIGHTS_PATH
from fl.roles import Role
from fl.visibility import principal_of_user

WIRE_STRUCTS: tuple[type[msgspec.Struct], ...] = (
    http.ServerIdentity,
    http.EnrollmentRequest,
    http.EnrollmentReceipt,
    http.UpdateReceipt,
    http.ProblemBody,
)
"""Bodies that devices and the server share; the others are serializers."""

COMMAND_PARAMETERS = [
    OpenApiParameter(
        KEY_HEADER,
        OpenApiTypes.STR,
        OpenApiParameter.HEADER,
        description="Of your choosing, one a command: sent again within a day, it answers the same and does nothing.",
    )
]

# Swagger UI sets styles in its markup; scripts and everything else are this server's own.
DOCS_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)


def wire(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Return the reference to a struct's schema, which must be one of `WIRE_STRUCTS`."""
    return {"$ref": f"#/components/schemas/{struct.__name__}"}


def _parameter(name: str, place: str, schema: Mapping[str, str], description: str) -> dict[str, Any]:
    return {"name": name, "in": place, "required": True, "schema": dict(schema), "description": description}


_BINARY = {"content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
DOWNLOAD_RESPONSES: dict[str, Any] = {
    "200": {"description": "All of it.", **_BINARY},
    "206": {"description": "The one range that was asked for.", **_BINARY},
    "304": {"description": "The one who asks has it already: If-None-Match names its ETag."},
}

UPDATE_OPERATION: dict[str, Any] = {
    "operationId": "assignments_send_update",
    "description": "Send an update as safetensors; sending the same again answers the same.",
    "tags": ["assignments"],
    "security": [{"deviceToken": []}],
    "parameters": [
        _parameter("assignment_id", "path", {"type": "integer"}, "The assignment's number."),
        _parameter(
            http.MANIFEST_HEADER,
            "header",
            {"type": "string", "format": "byte"},
            "The exact bytes of the manifest that were signed.",
        ),
        _parameter(
            http.SIGNATURE_HEADER,
            "header",
            {"type": "string", "format": "byte"},
            "ML-DSA-65 over the manifest, in the context `qflare/v1/update`.",
        ),
    ],
    "requestBody": {"required": True, "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}},
    "responses": {"200": {"description": "", "content": {"application/json": {"schema": wire(http.UpdateReceipt)}}}},
}
"""Where updates go; Django has no view of it."""

WEIGHTS_OPERATION: dict[str, Any] = {
    "operationId": "weights_retrieve",
    "description": "Download a published model of a run whose task the device offers, or its open assignment's base.",
    "tags": ["weights"],
    "security": [{"deviceToken": []}],
    "parameters": [_parameter("digest", "path", {"type": "string"}, "The digest of the weights, which is their ETag.")],
    "responses": DOWNLOAD_RESPONSES,
}
"""Where devices fetch weights; Django has no view of it."""


def complete_document(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Add the structs of the wire, the doors past Django, and to each operation the one shape of its errors."""
    result["paths"][UPDATE_PATH] = {"put": UPDATE_OPERATION}
    result["paths"][WEIGHTS_PATH] = {"get": WEIGHTS_OPERATION}
    _, components = msgspec.json.schema_components(WIRE_STRUCTS, ref_template="#/components/schemas/{name}")
    schemas = result.setdefault("components", {}).setdefault("schemas", {})
    schemas.update({name: _without_null_type(schema) for name, schema in components.items()})
    refusal = {
        "description": "Refused: what, why, and what to do.",
        "content": {"application/json": {"schema": wire(http.ProblemBody)}},
    }
    for operations in result["paths"].values():
        for operation in operations.values():
            operation["responses"]["4XX"] = refusal
    return result


class DeviceTokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # registers itself
    """Says what `DeviceTokenAuthentication` asks for."""

    target_class = "fl.api.authentication.DeviceTokenAuthentication"
    name = "deviceToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        """Return the scheme."""
        description = "The token that a device's `welcome` brings, renewed with its heartbeat."
        return {"type": "http", "scheme": "bearer", "description": description}


class DocsPage(UserPassesTestMixin, SpectacularSwaggerSplitView):
    """The document as a page to try, for those who may read; all of it comes from this server."""

    def test_func(self) -> bool:
        """Let viewers pass, and everybody where the dashboard is public; others sign in first."""
        return principal_of_user(self.request.user).role >= Role.VIEWER

    @extend_schema(exclude=True)
    def get(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        """Show the page under a policy that fits it."""
        response: Response = super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]  # the library's is
        response.headers["Content-Security-Policy"] = DOCS_POLICY
        return response


def _without_null_type(schema: Any) -> Any:
    """Say "or null" as OpenAPI 3.0 does: `nullable`, where JSON Schema has a type for it."""
    if isinstance(schema, list):
        return [_without_null_type(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: _without_null_type(value) for name, value in schema.items()}
    options = schema.get("anyOf", [])
    if {"type": "null"} in options:
        (option,) = [option for option in options if option != {"type": "null"}]
        del schema["anyOf"]
        schema = {**schema, **option, "nullable": True}
    return schema
