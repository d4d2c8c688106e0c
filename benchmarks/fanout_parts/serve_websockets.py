"""The floor: `broadcast` of the `websockets` library, without compression, with a publisher in its process.

python -m fanout_parts.serve_websockets PORT TOKENS
"""

import asyncio
import sys

from websockets.asyncio.server import ServerConnection, broadcast, serve

from fanout_parts.marks import EVENT_BYTES, mark
from fanout_parts.publisher import Publisher

connections: set[ServerConnection] = set()


async def main() -> None:
    port, tokens = map(int, sys.argv[1:])
    loop = asyncio.get_running_loop()

    def publish(first: int, count: int) -> None:
        for number in range(first, first + count):
            loop.call_soon_threadsafe(broadcast, connections, mark(number).ljust(EVENT_BYTES, "."))

    # Pings as rare as QFLARE's, so that they do not lift the floor.
    async with serve(_serve_one, "127.0.0.1", port, compression=None, ping_interval=75, backlog=2048) as server:
        Publisher({"events": publish}, tokens).start()
        await server.serve_forever()


async def _serve_one(connection: ServerConnection) -> None:
    connections.add(connection)
    try:
        async for _ in connection:
            pass
    finally:
        connections.discard(connection)


if __name__ == "__main__":
    asyncio.run(main())
