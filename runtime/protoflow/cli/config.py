"""`protoflow config`."""

from __future__ import annotations

import click

from protoflow.cli import output, settings


@click.command("config")
@settings.connects
@settings.prints_json
@click.option("--all", "everything", is_flag=True, help="Show built-in values too.")
def command(
    transport: str | None, config_file: str | None, as_json: bool, everything: bool
) -> None:
    """Show the settings as a service reads them, with the origin of each.

    Secrets are not shown. Exits with 2 if a setting is wrong.
    """
    described = settings.config_of(transport, config_file).describe()
    rows = [
        {"setting": name, "value": value, "from": origin}
        for name, (value, origin) in described.items()
        if everything or as_json or origin != "built in"
    ]
    if as_json:
        output.as_json(
            {row["setting"]: {"value": row["value"], "from": row["from"]} for row in rows}
        )
    else:
        output.table(
            rows, ("setting", "value", "from"),
            empty="every setting has its built-in value; --all shows them",
        )  # fmt: skip
