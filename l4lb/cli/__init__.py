"""The `l4lb` command. Each command is a few lines: parse, call, render."""

import importlib
import os
import sys

import click

from l4lb import __version__
from l4lb.errors import L4lbError, ManifoldError, ProgramError
from l4lb.options import DEFAULT_SOCKET

# Where each command lives: a module is imported when its command is used.
_COMMANDS = {
    "run": "l4lb.cli.run:run",
    "vip": "l4lb.cli.vip:vip",
    "backend": "l4lb.cli.backend:backend",
    "apply": "l4lb.cli.declare:apply",
    "diff": "l4lb.cli.declare:diff",
    "export": "l4lb.cli.declare:export",
    "status": "l4lb.cli.status:status",
    "explain": "l4lb.cli.explain:explain",
    "events": "l4lb.cli.events:events",
    "checks": "l4lb.cli.checks:checks",
    "unload": "l4lb.cli.unload:unload",
    "decap": "l4lb.cli.decap:decap",
    "completion": "l4lb.cli.completion:completion",
    "lab": "l4lb.cli.lab:lab",
}


class _Group(click.Group):
    """A group that imports its commands when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which a user meets them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="l4lb", message="%(prog)s %(version)s")
@click.option(
    "--socket",
    envvar="L4LB_SOCKET",
    default=str(DEFAULT_SOCKET),
    show_default=True,
    metavar="PATH",
    help="The daemon's control socket.",
)
@click.pass_context
def cli(ctx: click.Context, socket: str) -> None:
    """Layer 4 TCP/UDP load balancing in XDP.

    Start the daemon with `l4lb run`, then add virtual IPs and their backends:

    \b
      l4lb run --interface eth0
      l4lb vip add web 192.0.2.10:80/tcp
      l4lb backend add web 10.0.0.11:8080
      l4lb status
    """  # noqa: D301 (click wants the character)
    ctx.obj = socket


def main() -> None:
    """Runs the command line and exits with the documented status: 0 done, 1 failed, 2 usage, 3 no daemon."""
    sys.exit(_run())


def _run() -> int:
    try:
        result = cli(standalone_mode=False, prog_name="l4lb")
    except L4lbError as error:
        for each in error.errors if isinstance(error, ManifoldError) else (error,):
            _complain(str(each))
        if isinstance(error, ProgramError) and error.detail:
            click.echo(error.detail.rstrip(), err=True)
        return error.exit_code
    except click.exceptions.Abort:
        return 130  # Ctrl-C, as a shell reports it
    except click.ClickException as error:
        hint = ""
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f": see `{error.ctx.command_path} --help`"
        _complain(" ".join(error.format_message().split()).rstrip(".") + hint)
        return error.exit_code
    except BrokenPipeError:
        # The reader has seen enough. What is left in the buffer would be complained about at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return result if isinstance(result, int) else 0


def _complain(text: str) -> None:
    click.echo(f"l4lb: {text}", err=True)
