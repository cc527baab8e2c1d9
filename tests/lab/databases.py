"""Real databases and a gRPC server for the tests, with folders of their own, on the loopback.

Databases run as an unprivileged user. All end when whoever started them does, however that comes.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.unit.certificates import issue

USER = "probe"
PASSWORD = "geheim \u00e4 '\\ #"
_PATIENCE = 20.0  # seconds for a server to start or stop
_NOBODY = 65534


class Server:
    """A server, and its folder: besides its data ``password``, ``wrong``, ``ca.pem``, ``server.pem`` and ``log``.

    Attributes:
        ports: of whoever needs more than one, the second is for TLS.
    """

    def __init__(self, folder: Path, goodbye: signal.Signals, privileged: bool) -> None:
        self.folder = folder
        self.address = f"127.{secrets.randbelow(200) + 50}.{secrets.randbelow(256)}.1"
        self.ports = _free_ports(self.address)
        self._goodbye = goodbye  # on which it ends at once, and in order
        self._privileged = privileged
        self._command: tuple[str, ...] = ()
        self._ready = ""
        self._process: subprocess.Popen[bytes] | None = None

    def log(self, since: int = 0) -> str:
        """What it said after some bytes."""
        return (self.folder / "log").read_bytes()[since:].decode(errors="replace")

    def run(self, *command: str, stdin: str = "") -> None:
        """Runs a command to its end, as the server's user."""
        with (self.folder / "log").open("ab") as log:
            subprocess.run(
                self._bound(command), input=stdin.encode(), cwd=self.folder, stdout=log, stderr=log, check=True
            )

    def start(self, *command: str, ready: str) -> None:
        """Starts it, and returns when it says that it is `ready`."""
        self._command, self._ready = command, ready
        before = len((self.folder / "log").read_bytes())
        deadline = time.monotonic() + _PATIENCE
        while ready not in self.log(before):
            # One that was killed may leave children, which for a moment keep its successor from starting.
            if self._process is None or self._process.poll() is not None:
                self._process = self._popen(command)
            if time.monotonic() > deadline:
                pytest.fail(f"{command[0]} did not start:\n{self.log()}")
            time.sleep(0.02)

    def _popen(self, command: tuple[str, ...]) -> "subprocess.Popen[bytes]":
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                self._bound(command), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _bound(self, command: tuple[str, ...]) -> list[str]:
        """A command as its user's, that ends when we do."""
        user = () if self._privileged else ("--reuid", str(_NOBODY), "--regid", str(_NOBODY), "--clear-groups")
        return ["setpriv", *user, "--pdeathsig", "KILL", *command]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It does nothing meanwhile, though the kernel takes connections for it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    @contextmanager
    def killed(self) -> Iterator[None]:
        """It is gone meanwhile, without a goodbye."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(_PATIENCE)
        try:
            yield
        finally:
            self.start(*self._command, ready=self._ready)

    def stop(self) -> None:
        """Ends it."""
        if self._process is not None:
            self._process.send_signal(self._goodbye)
            self._process.send_signal(signal.SIGCONT)
            try:
                self._process.wait(_PATIENCE)
            finally:
                self._process.kill()


@contextmanager
def postgres() -> Iterator[Server]:
    """PostgreSQL; its user ``crowded`` may have no connections."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    with _server(signal.SIGQUIT) as server:
        data = str(server.folder / "data")
        program = str(programs / "postgres")
        server.run(
            str(programs / "initdb"), "-D", data, "--no-sync", "--no-instructions",
            "-U", "admin", "-A", "scram-sha-256", "--pwfile", "password", "--locale", "C", "-E", "UTF8",
        )  # fmt: skip
        quoted = PASSWORD.replace("'", "''")
        server.run(
            program, "--single", "-D", data, "postgres",
            stdin=f"CREATE ROLE {USER} LOGIN PASSWORD '{quoted}'\n"
            f"CREATE ROLE crowded LOGIN CONNECTION LIMIT 0 PASSWORD '{quoted}'\n",
        )  # fmt: skip
        certificate = server.folder / "server.pem"
        settings = (
            f"listen_addresses={server.address}", f"port={server.ports[0]}", f"unix_socket_directories={server.folder}",
            "fsync=off", "ssl=on", f"ssl_cert_file={certificate}", f"ssl_key_file={certificate}",
        )  # fmt: skip
        options = (f"-c{setting}" for setting in settings)
        server.start(program, "-D", data, *options, ready="ready to accept connections")
        yield server


@contextmanager
def mariadb() -> Iterator[Server]:
    """MariaDB; its user ``crowded`` may have one connection an hour."""
    with _server(signal.SIGKILL) as server:
        small = ("--innodb-buffer-pool-size=8M", "--innodb-log-file-size=4M", "--innodb-flush-method=nosync")
        data = f"--datadir={server.folder}/data"
        server.run("mariadb-install-db", "--no-defaults", data, "--skip-test-db", "--skip-name-resolve", *small)
        quoted = PASSWORD.replace("\\", "\\\\").replace("'", "\\'")
        (server.folder / "users.sql").write_text(
            f"CREATE USER IF NOT EXISTS {USER} IDENTIFIED BY '{quoted}';\n"
            f"CREATE USER IF NOT EXISTS crowded IDENTIFIED BY '{quoted}' WITH MAX_CONNECTIONS_PER_HOUR 1;\n"
            f"GRANT ALL ON *.* TO {USER};\n"
        )
        server.start(
            "mariadbd", "--no-defaults", data, *small, "--skip-name-resolve", "--character-set-server=utf8mb4",
            f"--bind-address={server.address}", f"--port={server.ports[0]}", f"--socket={server.folder}/socket",
            f"--init-file={server.folder}/users.sql", f"--ssl-cert={server.folder}/server.pem",
            f"--ssl-key={server.folder}/server.pem", "--log-warnings=4", ready="ready for connections",
        )  # fmt: skip
        yield server


@contextmanager
def redis() -> Iterator[Server]:
    """Redis; it has a port of its own for TLS, and wants a password."""
    with _server(signal.SIGKILL) as server:
        word = '"' + PASSWORD.replace("\\", "\\\\") + '"'
        (server.folder / "redis.conf").write_text(
            f"bind {server.address}\nport {server.ports[0]}\ntls-port {server.ports[1]}\n"
            f"tls-cert-file {server.folder}/server.pem\ntls-key-file {server.folder}/server.pem\n"
            f"tls-ca-cert-file {server.folder}/ca.pem\ntls-auth-clients no\n"
            f"requirepass {word}\nenable-debug-command yes\nsave ''\ndir {server.folder}\n"
            f"loading-process-events-interval-bytes 1024\n"
        )
        server.start("redis-server", str(server.folder / "redis.conf"), ready="Ready to accept connections")
        yield server


@contextmanager
def grpc() -> Iterator[Server]:
    """A server of gRPC's own; the third port has no health service."""
    with _server(signal.SIGKILL, privileged=True) as server:  # others may not be able to read the checkout
        script = str(Path(__file__).with_name("health_server.py"))
        server.start(sys.executable, script, server.address, *map(str, server.ports), "server.pem", ready="serving")
        yield server


@contextmanager
def _server(goodbye: signal.Signals, privileged: bool = False) -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="l4lb-database-"))
    server = Server(folder, goodbye, privileged)
    try:
        authority = issue(name="authority", authority=True)
        issue(authority).server_context(folder)  # it leaves certificate and key in a file
        next(folder.glob("*.pem")).rename(folder / "server.pem").chmod(0o600)
        (folder / "ca.pem").write_bytes(authority.pem)
        (folder / "password").write_text(f"{PASSWORD}\n")
        (folder / "wrong").write_text("falsch")
        (folder / "log").touch()
        for path in (folder, *folder.iterdir()):
            os.chown(path, _NOBODY, _NOBODY)
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


def _free_ports(address: str) -> tuple[int, ...]:
    """Three ports, which stay free, as nobody else has the address."""
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(3)]
        for sock in socks:
            sock.bind((address, 0))
        return tuple(sock.getsockname()[1] for sock in socks)
