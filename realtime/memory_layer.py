"""The channel layer of one process: Channels' own, less what that does over again for each message.

Channels looks through all groups for what has expired whenever a message is sent or received, and sends to each member
in a task of its own. With a group for each device that is most of what a message costs.
"""

import time
from typing import Any

from channels.exceptions import ChannelFull
from channels.layers import InMemoryChannelLayer

CLEAN_SECONDS = 10.0


class MemoryChannelLayer(InMemoryChannelLayer):
    """Keeps messages in memory, for the connections of this process."""

    _clean_at = 0.0

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Send a message to each member of a group, in the order of joining; one whose channel is full goes without."""
        self.require_valid_group_name(group)
        self._clean_expired()
        for channel in list(self.groups.get(group, ())):
            try:
                await self.send(channel, message)
            except ChannelFull:
                # As with every layer: what was lost is found in the log.
                continue

    def _clean_expired(self) -> None:
        now = time.monotonic()
        if now >= self._clean_at:
            self._clean_at = now + CLEAN_SECONDS
            super()._clean_expired()  # type: ignore[misc]  # the stubs leave out what is private
