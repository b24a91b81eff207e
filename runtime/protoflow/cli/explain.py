"""`protoflow explain`."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from protoflow.cli import explanations


@click.command("explain")
@click.argument("code")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(code: str, as_json: bool) -> None:
    """Show the cause and the fix of an error, by the CODE at the end of its text."""
    known = explanations.load()
    found = known.get(code.strip("[]").upper())
    if found is None:
        first, *_, last = known
        raise click.UsageError(f"{code} is not a code of an error; they go from {first} to {last}")
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    click.echo(f"{found.code}: {found.title}\n\nCause: {found.cause}\n\nFix: {found.fix}")
