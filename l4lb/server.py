"""The control socket: requests in, answers out, and no client that can harm another."""

import asyncio
import contextlib
import grp
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from l4lb import wire
from l4lb.errors import L4lbError

log = logging.getLogger(__name__)

Handler = Callable[[str, Mapping[str, object]], Awaitable[object]]

MAX_CLIENTS = 64
MESSAGE_SECONDS = 10.0  # for a message that has begun, and for a client to take its answer
IDLE_SECONDS = 300.0  # between messages
_BACKLOG = 64  # clients that may wait to be accepted
_PIECE = 1 << 16  # bytes read at a time
_SOCKET_MODE = 0o660


class ControlServer:
    """Serves `handler` on a Unix socket, mode 0660, that belongs to root and to `group` if there is one.

    Each client has a task of its own, and nothing of it is read while it is being answered. When there are too many,
    the one that has been silent for longest makes room.
    """

    def __init__(
        self,
        path: Path,
        handler: Handler,
        group: str | None = None,
        patience: float = MESSAGE_SECONDS,
    ) -> None:
        self._path = path
        self._handler = handler
        self._group = group
        self._patience = patience
        self._listener: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._waiting: dict[asyncio.Task[None], None] = {}  # those that owe a message, longest waiting first

    def listen(self) -> None:
        """Takes the socket; one that a dead daemon left is replaced. Clients wait until :meth:`start`.

        Raises:
            L4lbError: a daemon answers there already, or the socket cannot be made.
        """
        gid = _group_id(self._group)
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            _remove_stale(self._path)
            self._listener = _listen(self._path, gid)
        except OSError as error:
            reason = error.strerror or str(error)
            raise L4lbError(
                f"cannot listen on {self._path} ({reason})", "run as root, or name another path by --socket"
            ) from error

    async def start(self) -> None:
        """Begins to serve."""
        self._server = await asyncio.start_unix_server(self._accept, sock=self._listener)

    async def close(self) -> None:
        """Stops listening and drops the clients; the socket is taken away."""
        if self._listener is None:
            return
        if self._server is not None:
            self._server.close()
        self._listener.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            if len(self._clients) <= MAX_CLIENTS or self._drop_longest_idle():
                await self._serve(reader, writer, task)
            else:
                busy = L4lbError(f"the daemon answers {MAX_CLIENTS} clients already", "try again in a moment")
                await self._send(writer, wire.encode_error(busy))
        except (ConnectionError, TimeoutError, asyncio.CancelledError):
            # The client is gone, too slow or dropped, or the daemon ends: nothing more is owed to it.
            writer.transport.abort()
        finally:
            self._clients.discard(task)
            self._waiting.pop(task, None)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _drop_longest_idle(self) -> bool:
        """Makes room for a new client; False if all are being answered."""
        for client in self._waiting:
            del self._waiting[client]
            client.cancel()
            return True
        return False

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: asyncio.Task[None]
    ) -> None:
        decoder = wire.Decoder(wire.MAX_REQUEST)
        while True:
            self._waiting[task] = None
            async with asyncio.timeout(IDLE_SECONDS):
                data = await reader.read(_PIECE)
            try:
                # One time for a whole message, so that a trickle of bytes is no way around it.
                async with asyncio.timeout(self._patience) as patience:
                    while data and not (messages := list(decoder.feed(data))):
                        data = await reader.read(_PIECE)
                    patience.reschedule(None)
                    self._waiting.pop(task, None)
                    if not data:
                        return
                    for message in messages:
                        await self._send(writer, await self._answer(message))
            except wire.WireError as error:
                await self._send(writer, wire.encode_error(error))
                return

    async def _answer(self, message: Mapping[object, object]) -> bytes:
        try:
            return wire.encode_result(await self._handler(*wire.open_request(message)))
        except L4lbError as error:
            return wire.encode_error(error)
        except Exception:
            log.exception("internal error while answering %r", message.get("op"))
            return wire.encode_error(
                L4lbError("the daemon met an internal error", "its log has the details; nothing was acknowledged")
            )

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(data)
        async with asyncio.timeout(self._patience):
            await writer.drain()


def _group_id(group: str | None) -> int:
    if group is None:
        return -1
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise L4lbError(
            f"there is no group {group!r} for the control socket", f"make it with `groupadd {group}`"
        ) from error


def _remove_stale(path: Path) -> None:
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise L4lbError(f"{path} is not a socket", "name another path by --socket")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise L4lbError(f"a daemon answers on {path} already", "stop it, or name another path by --socket")


def _listen(path: Path, gid: int) -> socket.socket:
    """A listening socket that at no moment was open to more users than it should be."""
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o777)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(_BACKLOG)
    os.chown(path, -1, gid)
    path.chmod(_SOCKET_MODE)
    return listener
