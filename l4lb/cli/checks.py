"""`l4lb checks`: the kinds of checks, and what can be said of each."""

import click

from l4lb.health.kinds import KINDS


@click.command()
@click.argument("kind", type=click.Choice(list(KINDS)), required=False)
def checks(kind: str | None) -> None:
    """List the kinds of checks with their options, or tell of one KIND.

    A check is written KIND:OPTION=VALUE,OPTION=VALUE, as in

    \b
      l4lb vip set web --check http:path=/health,status=200 --interval 500ms
    """  # noqa: D301 (click wants the character)
    for found in KINDS.values() if kind is None else (KINDS[kind],):
        click.echo(f"{found.name}: {found.help}")
        for option in found.options.values():
            marks = [f"default {option.default}"] if option.default else []
            marks += ["may repeat"] * option.repeats + ["required"] * option.required
            click.echo(f"    {option.name:14}{option.help}" + (f" ({', '.join(marks)})" if marks else ""))
        if found.extra is not None:
            click.echo(f"    needs pip install 'l4lb[{found.extra.name}]'")
