"""PostgreSQL takes a login and runs a query. The protocol is pg8000's.

pg8000 waits for its socket, so each probe has a thread. The libraries for asyncio are no way out: a hundred zero bytes
instead of an answer keep asyncpg 0.32, and with it all other checks, busy for ever; psycopg makes its sockets and its
TLS itself, and when it is given up first waits for the server to cancel the query.
"""

import re
import socket
import ssl
from contextlib import suppress
from typing import NoReturn

from pg8000.core import Context
from pg8000.exceptions import DatabaseError, InterfaceError
from pg8000.native import Connection
from scramp import ScramException

from l4lb.health.check import Check
from l4lb.probes import trust
from l4lb.probes.blocking import attend, beneath
from l4lb.probes.login import APPLICATION, MAX_QUERY_TIME, QUERY, compare, password
from l4lb.probes.target import Target, Unwell

# A query goes on when nobody waits for it any longer, so its time is bounded.
_BEGIN = f"BEGIN READ ONLY; SET LOCAL statement_timeout = '{MAX_QUERY_TIME}s'"
_MAX_ROUNDS = 1_000_000  # half a second; PostgreSQL has 4,096
_REASONS = {  # by SQLSTATE
    "28000": "login refused",
    "28P01": "login refused",
    "3D000": "no such database",
    "42501": "not allowed",
    "53300": "too many connections",
    "57P01": "shutting down",
    "57P02": "crashed",
    "57P03": "takes no logins now",
    "25006": "read-only",
}


async def probe(check: Check, target: Target) -> None:
    """Logs in and runs the query in a read-only transaction."""
    secret = password(check)
    tls = trust.optional(check)
    found = await attend(target, lambda sock: _ask(sock, check, secret, tls))
    compare("query", found, check.get("expect"))


class _Connection(Connection):  # type: ignore[misc]
    def handle_AUTHENTICATION_REQUEST(self, data: bytes, context: Context) -> None:  # noqa: N802 - pg8000's name
        """Goes on with a login, unless it would take long: a thread that calculates cannot be ended."""
        rounds = re.search(rb",i=(\d+)", data)  # of SCRAM, as the server wants them
        if rounds and int(rounds[1]) > _MAX_ROUNDS:
            raise InterfaceError(f"login takes {int(rounds[1]):,} rounds of hashing")
        super().handle_AUTHENTICATION_REQUEST(data, context)


def _ask(sock: socket.socket, check: Check, secret: str, tls: tuple[ssl.SSLContext, str | None] | None) -> str:
    connection = None
    try:
        connection = _Connection(
            check.get("user"),
            password=secret,
            database=check.get("database"),
            sock=sock,
            ssl_context=tls[0] if tls else False,
            host=tls[1] if tls else None,  # but the name that is asked for in the handshake
            application_name=APPLICATION,
        )
        connection.pg_types.clear()  # values come as the server writes them
        connection.run(_BEGIN)
        rows = connection.run(check.get("query") or QUERY)
    except Exception as error:  # whatever its parser stumbles over
        _raise(error)
    finally:
        if connection is not None:
            with suppress(InterfaceError):
                connection.close()
    if not rows or not rows[0]:
        return "no row"
    return "NULL" if rows[0][0] is None else rows[0][0]


def _raise(error: Exception) -> NoReturn:
    """Says what the server did, or raises the system's error, if that is what it is about."""
    for cause in beneath(error):
        if isinstance(cause, DatabaseError):  # before a system's error, as of saying goodbye to one who is gone
            said = cause.args[0]
            raise Unwell(f"{_REASONS.get(said.get('C'), 'failed')}: {said.get('M')} ({said.get('C')})") from None
    for cause in beneath(error):
        if isinstance(cause, OSError):
            raise cause from None
    match error:
        case InterfaceError(args=("network error",)):
            raise Unwell("connection closed without an answer") from None
        case InterfaceError(args=("Server refuses SSL",)):
            raise Unwell("speaks no TLS") from None
        case InterfaceError() | ScramException():
            raise Unwell(f"failed: {error}") from None
        case _:
            raise Unwell("does not speak PostgreSQL's protocol") from None
