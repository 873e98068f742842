"""The way in from other machines: mutual TLS on the node's own address, and behind it the server's UNIX socket.

Who has not the run's key, which only its owner can read, gets no further than the handshake.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

HANDSHAKE_S = 10.0
HANDSHAKES = 64
"""So many at a time: strangers who connect and stay silent keep none of this process's files for longer than a handshake."""
CHUNK = 1 << 18


@contextmanager
def gate(host: str, target: Path, context: ssl.SSLContext, port: int = 0) -> Iterator[int]:
    """Listen on a port of `host`, a free one without a number, and hand on to the UNIX socket. Yields the port."""
    listening = socket.create_server((host, port))
    listening.setblocking(False)
    loop = asyncio.new_event_loop()
    accepting = loop.create_task(_accept(listening, target, context))
    thread = threading.Thread(target=_run, args=(loop, accepting), name="gate", daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        loop.call_soon_threadsafe(accepting.cancel)
        thread.join()
        listening.close()


def _run(loop: asyncio.AbstractEventLoop, accepting: asyncio.Task[None]) -> None:
    with suppress(asyncio.CancelledError):
        loop.run_until_complete(accepting)
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(loop), return_exceptions=True))
    loop.close()


async def _accept(listening: socket.socket, target: Path, context: ssl.SSLContext) -> None:
    loop, room = asyncio.get_running_loop(), asyncio.Semaphore(HANDSHAKES)
    tasks: set[asyncio.Task[None]] = set()
    while True:
        await room.acquire()
        near, _ = await loop.sock_accept(listening)
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tasks.add(task := asyncio.create_task(_relay(near, target, context, room)))
        task.add_done_callback(tasks.discard)


async def _relay(near: socket.socket, target: Path, context: ssl.SSLContext, room: asyncio.Semaphore) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=CHUNK)
    protocol = asyncio.StreamReaderProtocol(reader)
    try:
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, near, ssl=context, ssl_handshake_timeout=HANDSHAKE_S)
    except (OSError, asyncio.IncompleteReadError):  # no certificate of the run's, no TLS, or silence
        near.close()
        return
    finally:
        room.release()
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    try:
        far_reader, far_writer = await asyncio.open_unix_connection(str(target), limit=CHUNK)
    except OSError:  # Triton has ended
        writer.close()
        return
    await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(CHUNK):
            sink.write(data)
            await sink.drain()
    except OSError:  # the other end is gone
        pass
    finally:
        sink.close()
