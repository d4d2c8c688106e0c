"""The text of an enrolment token: its id, its secret and the server's fingerprint in one line to copy."""

from dataclasses import dataclass

PREFIX = "qfe1"


class MalformedToken(ValueError):
    """The text is not an enrolment token."""


@dataclass(frozen=True)
class TokenText:
    """The three parts of a token; `fingerprint` is that of the server's key, which the device pins."""

    id: str
    secret: str
    fingerprint: str

    def __str__(self) -> str:
        return f"{PREFIX}.{self.id}.{self.secret}.{self.fingerprint}"

    def __repr__(self) -> str:
        # A secret must not reach a log by way of a traceback.
        return f"TokenText(id={self.id!r}, fingerprint={self.fingerprint!r})"


def parse_token(text: str) -> TokenText:
    """Read a token's text.

    Raises:
        MalformedToken: it has not the four parts `qfe1.<id>.<secret>.<fingerprint>`.
    """
    parts = text.strip().split(".")
    if len(parts) != 4 or parts[0] != PREFIX or not all(parts):
        raise MalformedToken(
            f"this is not an enrolment token: it must read {PREFIX}.<id>.<secret>.<fingerprint>; copy it whole"
        )
    return TokenText(id=parts[1], secret=parts[2], fingerprint=parts[3])
