"""`l4lb completion`: scripts that make a shell complete l4lb's commands, options, VIPs and backends."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a completion script for a shell.

    \b
    bash  echo 'eval "$(l4lb completion bash)"' >> ~/.bashrc
    zsh   echo 'eval "$(l4lb completion zsh)"' >> ~/.zshrc
    fish  l4lb completion fish > ~/.config/fish/completions/l4lb.fish
    """  # noqa: D301 (click wants the character)
    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(ctx.find_root().command, {}, "l4lb", "_L4LB_COMPLETE").source())
