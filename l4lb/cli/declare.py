"""`l4lb apply`, `l4lb diff`, `l4lb export`: the whole configuration as a file."""

from typing import Any

import click

from l4lb.cli import common, render
from l4lb.difference import line
from l4lb.errors import L4lbError, UsageError

_DIFFERENT = 1
_PATIENCE = 600  # seconds: as many VIPs as there is room for are planned for half a minute

_file = click.argument("file", type=common.file_type)


@click.command()
@common.socket_option
@common.json_option
@_file
def apply(file: str, as_json: bool) -> None:
    """Make FILE (- for standard input) the configuration, in one change, and show what that changed.

    The file is the whole truth: VIPs and backends that are not in it go, settings that are not in it have their
    defaults, and a drain that is not in it ends. A file with anything wrong changes nothing. `l4lb diff` shows what
    would change, `l4lb export` writes such a file.
    """
    changes = _ask("config.apply", file)
    _show(changes, as_json)
    common.done("applied" if changes else "nothing to change")


@click.command()
@common.socket_option
@common.json_option
@_file
def diff(file: str, as_json: bool) -> int:
    """Show what `l4lb apply FILE` would change.

    Ends with 0 if that is nothing, with 1 if it is something; with 2 if the file is not right or cannot be compared,
    and 3 if the daemon does not answer.
    """
    try:
        changes = _ask("config.diff", file)
    except L4lbError as error:
        # 1 says that there are differences, and nothing else.
        if error.exit_code == _DIFFERENT:
            raise UsageError(error.message, error.hint) from error
        raise
    _show(changes, as_json)
    return _DIFFERENT if changes else 0


@click.command()
@common.socket_option
@common.json_option
def export(as_json: bool) -> None:
    """Write the configuration as YAML, for `l4lb apply`; what is as it always is, is left out."""
    found = common.call("config.export")
    if as_json:
        common.print_json(found)
        return
    from l4lb import document_file

    click.echo(document_file.write(found), nl=False)


def _ask(operation: str, file: str) -> Any:
    """What the daemon makes of a file that is right by itself."""
    from l4lb import document_file

    return common.call(operation, _PATIENCE, document=document_file.read(file))


def _show(changes: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        common.print_json(changes)
    else:
        render.differences(map(line, changes))
