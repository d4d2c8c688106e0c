"""What is true: one module for each table, or for tables that live together."""

from fl.models.assignment import Assignment
from fl.models.audit import AuditEntry
from fl.models.device import Device, DeviceTask, EnrollmentToken, PresenceLease
from fl.models.event import ErrorGroup, Event, Stream
from fl.models.global_model import GlobalModel
from fl.models.requests import IdempotentRequest, SignInCode
from fl.models.round import Round
from fl.models.run import Run
from fl.models.update import Update

__all__ = [
    "Assignment",
    "AuditEntry",
    "Device",
    "DeviceTask",
    "EnrollmentToken",
    "ErrorGroup",
    "Event",
    "GlobalModel",
    "IdempotentRequest",
    "PresenceLease",
    "Round",
    "Run",
    "SignInCode",
    "Stream",
    "Update",
]
