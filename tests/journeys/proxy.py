"""A proxy that ends TLS, and asks the server by another name than it was asked by; one request a connection.

It passes bytes on only as fast as the other side takes them.
"""

import asyncio
import contextlib
import re
import ssl
import threading

NAME_WITHIN = b"learning.internal"
"""The Host that the server is told, which is none that it answers to."""
NOT_PASSED = re.compile(rb"(?i)(host|connection|x-forwarded-\w+):")
BUFFER_BYTES = 64 * 1024


class Proxy:
    """Runs in a thread of its own between `with` and its end."""

    def __init__(self, certificates, behind):
        self.port = 0
        self._behind = behind
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificates.chain, certificates.key)
        self._loop = asyncio.new_event_loop()
        self._is_listening = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        assert self._is_listening.wait(60)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._loop.close()

    def _run(self):
        self._loop.run_until_complete(self._serve())

    async def _serve(self):
        self._ended = asyncio.Event()
        self._connections = set()
        listening = await asyncio.start_server(self._begin, "127.0.0.1", 0, ssl=self._tls, limit=BUFFER_BYTES)
        self.port = listening.sockets[0].getsockname()[1]
        self._is_listening.set()
        await self._ended.wait()
        listening.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _begin(self, reader, writer):
        connection = asyncio.current_task()
        self._connections.add(connection)
        try:
            await self._pass_on(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # whoever is gone, the other side is let go too
        finally:
            self._connections.discard(connection)
            writer.transport.abort()

    async def _pass_on(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._behind, limit=BUFFER_BYTES)
        inner_writer.write(self._rewritten(head))
        out = asyncio.ensure_future(pour(reader, inner_writer))
        try:
            await pour(inner_reader, writer)
            with contextlib.suppress(OSError):
                writer.close()
                await writer.wait_closed()
        finally:
            out.cancel()
            inner_writer.transport.abort()

    @staticmethod
    def _rewritten(head):
        first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
        (host,) = (line.split(b":", 1)[1].strip() for line in lines if line.lower().startswith(b"host:"))
        is_upgrade = any(line.lower().startswith(b"upgrade:") for line in lines)
        lines = [line for line in lines if not NOT_PASSED.match(line)]
        lines += [b"Host: " + NAME_WITHIN, b"Connection: " + (b"Upgrade" if is_upgrade else b"close")]
        lines += [b"X-Forwarded-Proto: https", b"X-Forwarded-Host: " + host, b"X-Forwarded-For: 198.51.100.7"]
        return b"\r\n".join([first, *lines, b"", b""])


async def pour(reader, writer):
    """Pass bytes on to their end."""
    while data := await reader.read(BUFFER_BYTES):
        writer.write(data)
        await writer.drain()
