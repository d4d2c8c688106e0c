"""What devices need over HTTP: who the server is, a way in, weights down, updates up. The socket carries all else."""

from base64 import b64decode, b64encode
from typing import Any

import msgspec
from django.conf import settings
from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ParseError
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.views import APIView

from edge.identity import ALGORITHM, ENROLL_CONTEXT, RECEIPT_CONTEXT, BadSignature, verify
from edge.protocol import PROTOCOL
from edge.protocol.http import (
    SIGNATURE_HEADER,
    EnrollmentReceipt,
    EnrollmentRequest,
    ServerIdentity,
    UpdateReceipt,
)
from fl import assignments, devices
from fl.api.authentication import the_device
from fl.api.permissions import ForDevices
from fl.api.schema import wire
from fl.api.throttling import RefusedEnrollments
from fl.api.uploads import bytes_of
from fl.exceptions import (
    Invalid,
    NotAllowed,
    TokenRefused,
    TooLarge,
)
from fl.server_key import server_key

MAX_ENROLLMENT_BYTES = 16 * 1024


def _header(name: str, description: str) -> OpenApiParameter:
    return OpenApiParameter(name, OpenApiTypes.BYTE, OpenApiParameter.HEADER, required=True, description=description)


class ServerView(APIView):
    """Who the server is."""

    authentication_classes = ()
    permission_classes = [AllowAny]

    @extend_schema(responses={(200, "application/json"): wire(ServerIdentity)})
    def get(self, request: Request) -> HttpResponse:
        """Tell the server's key; a device checks its fingerprint against its token or its pin."""
        key = server_key()
        identity = ServerIdentity(
            protocol=PROTOCOL,
            algorithm=ALGORITHM,
            public_key=b64encode(key.public_key).decode(),
            fingerprint=key.fingerprint,
            version=settings.QFLARE_VERSION,
        )
        return _json(identity)


class EnrollView(APIView):
    """A device's way in."""

    authentication_classes = ()
    permission_classes = [AllowAny]
    throttle_classes = [RefusedEnrollments]

    @extend_schema(
        request={"application/json": wire(EnrollmentRequest)},
        parameters=[_header(SIGNATURE_HEADER, "ML-DSA-65 over the exact body, in the context `qflare/v1/enroll`.")],
        responses={
            (200, "application/json"): wire(EnrollmentReceipt),
            (201, "application/json"): wire(EnrollmentReceipt),
        },
    )
    def post(self, request: Request) -> HttpResponse:
        """Enrol a device by its token; the receipt is signed by the server. The same request answers the same."""
        wanted, now = _signed_request(request), timezone.now()
        try:
            device = devices.enroll(request=wanted, now=now)
        except TokenRefused:
            RefusedEnrollments().count_refusal(request, self)
            raise
        key = server_key()
        receipt = EnrollmentReceipt(
            device_id=device.pk,
            name=device.name,
            state=device.state,
            device_fingerprint=device.fingerprint,
            server_public_key=b64encode(key.public_key).decode(),
            server_fingerprint=key.fingerprint,
        )
        response = _json(receipt, status=201 if device.enrolled_at == now else 200)
        response.headers[SIGNATURE_HEADER] = b64encode(key.sign(response.content, RECEIPT_CONTEXT)).decode()
        return response


class FailureSerializer(serializers.Serializer[Any]):
    """Why a device gives up."""

    reason = serializers.CharField(max_length=500)


class FailureView(APIView):
    """Where a device says that it gives an assignment up."""

    permission_classes = [ForDevices]

    @extend_schema(
        operation_id="assignments_give_up",
        request=FailureSerializer,
        responses={(200, "application/json"): wire(UpdateReceipt)},
    )
    def post(self, request: Request, assignment_id: int) -> HttpResponse:
        """End an assignment as failed: training diverged, or there is no usable data."""
        wanted = FailureSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        assignment = assignments.give_up(
            device=the_device(request),
            assignment_id=assignment_id,
            reason=wanted.validated_data["reason"],
            now=timezone.now(),
        )
        return _json(UpdateReceipt(assignment_id=assignment.pk, state=assignment.state, reason=assignment.reason))


def _signed_request(request: Request) -> EnrollmentRequest:
    """Read an enrolment and make sure that its sender has the key that it brings."""
    body = request._request.read(MAX_ENROLLMENT_BYTES + 1)
    if len(body) > MAX_ENROLLMENT_BYTES:
        raise TooLarge(f"an enrolment has at most {MAX_ENROLLMENT_BYTES} bytes")
    try:
        wanted = msgspec.json.decode(body, type=EnrollmentRequest)
        public_key = b64decode(wanted.public_key, validate=True)
    except msgspec.ValidationError as error:
        raise Invalid(f"this is no enrolment: {error}") from error
    except msgspec.DecodeError as error:
        raise ParseError(f"the body is not JSON: {error}") from error
    except ValueError as error:
        raise Invalid("the public key is not base64", field="public_key") from error
    try:
        verify(public_key, bytes_of(request.headers, SIGNATURE_HEADER), body, ENROLL_CONTEXT)
    except BadSignature as error:
        raise NotAllowed(
            "the enrolment is not signed with the key that it brings",
            action=f"sign the exact body, and send the signature in {SIGNATURE_HEADER}",
            code="bad_signature",
        ) from error
    return wanted


def _json(content: msgspec.Struct, *, status: int = 200) -> HttpResponse:
    return HttpResponse(msgspec.json.encode(content), status=status, content_type="application/json")
