import pytest

from edge.protocol.close_codes import CloseCode
from fl import exceptions
from realtime.close_codes import close_code_of, meaning_of, require_sendable


@pytest.mark.parametrize("code", [1001, 1008, 1011, 1012, 1013, 3000, 3999, 5000])
def test_a_code_that_some_server_cannot_send_is_refused(code):
    with pytest.raises(ValueError, match=str(code)):
        require_sendable(code)


@pytest.mark.parametrize("code", CloseCode)
def test_every_code_of_ours_can_be_sent_and_has_a_meaning(code):
    require_sendable(code)

    assert meaning_of(code)


def all_errors(kind=exceptions.FlError):
    return [kind, *[error for child in kind.__subclasses__() for error in all_errors(child)]]


@pytest.mark.parametrize("kind", all_errors())
def test_every_error_that_ends_a_connection_has_its_code(kind):
    error = kind.__new__(kind)

    assert close_code_of(error) in CloseCode


def test_a_barred_device_is_told_another_code_than_an_unknown_one():
    assert close_code_of(exceptions.DeviceBarred("barred")) is CloseCode.DEVICE_BARRED
    assert close_code_of(exceptions.DevicePending("pending")) is CloseCode.NOT_APPROVED
    assert close_code_of(exceptions.Unauthenticated("who?")) is CloseCode.NOT_AUTHENTICATED
    assert close_code_of(exceptions.NotAllowed("no")) is CloseCode.FORBIDDEN
