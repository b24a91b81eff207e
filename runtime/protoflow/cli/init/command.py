"""`protoflow init`."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

import click

from protoflow.cli.init import files
from protoflow.config.url import TransportURL
from protoflow.transports.built_in import BUILT_IN


@click.command("init")
@click.argument("name")
@click.option("--transport", default="", metavar="URL", help="sqlite:///NAME.db by default.")
def command(name: str, transport: str) -> None:
    """Write a project into the new folder NAME: a contract, its handlers, a test."""
    package = name.replace("-", "_").lower()
    if not re.fullmatch(r"[a-z][a-z0-9_]*", package) or keyword.iskeyword(package):
        raise click.UsageError(
            f"{name} gives no Python package; use a to z, 0 to 9 and -, and begin with a to z"
        )
    folder = Path(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise click.UsageError(f"{name} exists and is not an empty folder; choose another name")
    url = transport or f"sqlite:///{package}.db"
    scheme = TransportURL.parse(url).scheme
    extra = next((one.extra for one in BUILT_IN if scheme in one.schemes), "")
    for path, text in files.of(name, package, url, extra).items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        click.echo(f"wrote {file}")
    click.echo(f"next:\n  cd {name}\n  protoflow generate\n  protoflow run app", err=True)
