"""What a device runs, and the contract it shares with the server.

The server imports from here too (tasks, messages, weights on the wire), so that both sides read one definition. This is
the lowest layer: nothing here may know Django, Channels or who is listening. It is all that the wheel `qflare-edge`
holds.
"""

__version__ = "0.1.0"
"""Version of the device's side; a device names it in its `hello`."""
