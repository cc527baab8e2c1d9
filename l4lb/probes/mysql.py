"""MySQL or MariaDB takes a login and runs a query. The protocol is PyMySQL's.

PyMySQL waits for its socket, so each probe has a thread. Its relatives for asyncio are no way out: aiomysql goes on
without TLS, and with the password, where a server says that it has none; asyncmy weighs 20 MB.
"""

import socket
from typing import Any, NoReturn

import pymysql
from pymysql.constants import CR, ER

from l4lb.health.check import Check
from l4lb.probes import trust
from l4lb.probes.blocking import attend, beneath
from l4lb.probes.login import APPLICATION, MAX_QUERY_TIME, QUERY, compare, password
from l4lb.probes.target import Target, Unwell

# Of a large table only one row is sent. A query goes on when nobody waits for it any longer, so its time is bounded:
# in MariaDB by what to MySQL is a comment, and in MySQL 5.7.8 and later by what to MariaDB is one.
_SETTINGS = (
    f"SET SESSION sql_select_limit = 1 /*M!100101 , max_statement_time = {MAX_QUERY_TIME} */"
    f" /*!50708 , max_execution_time = {MAX_QUERY_TIME * 1000} */"
)
_REASONS = {
    ER.ACCESS_DENIED_ERROR: "login refused",
    ER.DBACCESS_DENIED_ERROR: "login refused",
    1698: "login refused",  # ER_ACCESS_DENIED_NO_PASSWORD_ERROR, which PyMySQL has no name for
    ER.HOST_NOT_PRIVILEGED: "login refused",
    ER.HOST_IS_BLOCKED: "login refused",
    ER.BAD_DB_ERROR: "no such database",
    ER.CON_COUNT_ERROR: "too many connections",
    ER.TOO_MANY_USER_CONNECTIONS: "too many connections",
    ER.USER_LIMIT_REACHED: "too many connections",
    ER.SERVER_SHUTDOWN: "shutting down",
    ER.OPTION_PREVENTS_STATEMENT: "read-only",
    1792: "read-only",  # ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION, likewise
}


async def probe(check: Check, target: Target) -> None:
    """Logs in and runs the query in a read-only transaction."""
    login: dict[str, Any] = {
        "user": check.get("user"),
        "password": password(check).encode(),  # of text, PyMySQL would make Latin-1
        "database": check.get("database"),
    }
    tls = trust.optional(check)
    # With a socket of ours, the host is but the name that is asked for in the handshake.
    login |= {"ssl": tls[0], "host": tls[1] or target.address} if tls else {"ssl_disabled": True}
    query = check.get("query") or QUERY
    found = await attend(target, lambda sock: _ask(sock, login, query))
    compare("query", found, check.get("expect"))


def _ask(sock: socket.socket, login: dict[str, Any], query: str) -> str:
    connection = pymysql.Connection(
        **login,
        defer_connect=True,
        charset="utf8mb4",
        conv={},  # values come as the server writes them
        autocommit=None,  # as the server has it: a transaction is begun below
        program_name=APPLICATION,
        init_command=_SETTINGS,
    )
    try:
        connection.connect(sock)
        with connection.cursor() as cursor:
            cursor.execute("START TRANSACTION READ ONLY")
            cursor.execute(query)
            row = cursor.fetchone()
    except pymysql.MySQLError as error:
        _raise(error)
    except RuntimeError as error:  # something that PyMySQL refuses to do, as to send one of our files
        raise Unwell(f"failed: {error}") from None
    except Exception:  # whatever its parser stumbles over
        raise Unwell("does not speak MySQL's protocol") from None
    finally:
        if connection.open:
            connection.close()
    return _text(row)


def _raise(error: pymysql.MySQLError) -> NoReturn:
    """Raises the system's error, if that is what it is about, or says what the server did."""
    for cause in beneath(error):
        if isinstance(cause, OSError):
            raise cause from None
    code, said = error.args if len(error.args) == 2 else (0, str(error))
    if code == CR.CR_SERVER_LOST:
        raise Unwell("connection closed without an answer") from None
    if code == 0:  # PyMySQL's own, as of a packet out of turn
        raise Unwell("does not speak MySQL's protocol") from None
    raise Unwell(f"{_REASONS.get(code, 'failed')}: {said} ({code})") from None


def _text(row: tuple[str | bytes | None, ...] | None) -> str:
    """The first field as it is compared."""
    field = row[0] if row else "no row"
    if field is None:
        return "NULL"
    return field.decode(errors="replace") if isinstance(field, bytes) else field
