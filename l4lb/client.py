"""The command line's end of the control socket."""

import socket
from pathlib import Path

from l4lb import wire
from l4lb.errors import UnreachableError

PATIENCE = 60.0  # seconds, longer than most answers take: one that compiles a program is ready after a few


class Client:
    """Sends requests to the daemon, one connection each; `timeout` is in seconds."""

    def __init__(self, path: Path, timeout: float = PATIENCE) -> None:
        self._path = path
        self._timeout = timeout

    def call(self, operation: str, **arguments: object) -> object:
        """The daemon's answer.

        Raises:
            UnreachableError: it does not answer.
            L4lbError: what it refused, and why.
        """
        request = wire.encode_request(operation, arguments)
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(self._timeout)
                connection.connect(str(self._path))
                connection.sendall(request)
                return wire.open_reply(self._read(connection))
        except PermissionError as error:
            raise UnreachableError(
                f"no permission for the control socket {self._path}", "use sudo, or join the socket's group"
            ) from error
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise UnreachableError(
                f"no daemon answers on {self._path}",
                "start it with `l4lb run --interface IF`, or name its socket by --socket or L4LB_SOCKET",
            ) from error
        except TimeoutError as error:
            raise UnreachableError(
                f"the daemon on {self._path} did not answer within {self._timeout:g} seconds",
                "see its log; it may be overloaded",
            ) from error
        except OSError as error:
            raise UnreachableError(
                f"cannot talk to the daemon on {self._path} ({error.strerror or error})", "see its log"
            ) from error

    def _read(self, connection: socket.socket) -> dict[object, object]:
        decoder = wire.Decoder(wire.MAX_REPLY)
        while data := connection.recv(1 << 16):
            for message in decoder.feed(data):
                return message
        raise UnreachableError(
            f"the daemon on {self._path} ended in mid answer", "see its log, and whether the change was made"
        )
