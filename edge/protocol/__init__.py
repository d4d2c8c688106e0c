"""The contract on the wire: every message that devices, the server, browsers and programs exchange.

`server` holds what the server says, `client` what clients say, `http` the bodies of the device's requests, `enrollment`
the token's text, `handshake` what is signed when a device connects, `close_codes` why a connection ends.
"""

PROTOCOL = "qflare.v1"
"""Name and version of the protocol: WebSocket subprotocol, and a field of `hello`, manifests and enrolments."""

MAX_CLIENT_MESSAGE_BYTES = 64 * 1024
"""Longest text frame that the server reads from a client."""
