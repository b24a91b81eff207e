"""`protoflow init`."""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path

import click

from protoflow.cli.init import files
from protoflow.cli.init import start as first_start
from protoflow.config.url import TransportURL
from protoflow.transports.built_in import BUILT_IN


def _is_taken(package: str) -> bool:
    """Returns whether Python finds a module of this name; namespace packages do not count."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None


@click.command("init")
@click.argument("name")
@click.option(
    "--transport",
    default="",
    metavar="URL",
    help="URL of the broker; sqlite:///NAME.db by default.",
)
@click.option(
    "--start",
    is_flag=True,
    help="Generate the code, publish a message, and run the project as `dev` does.",
)
@click.option(
    "--http",
    type=click.IntRange(1, 65535),
    default=8080,
    show_default=True,
    help="Port of the HTTP pages of --start.",
)
@click.pass_context
def command(ctx: click.Context, /, name: str, transport: str, *, start: bool, http: int) -> None:
    """Write a project into the new folder NAME: a contract, its handlers, a test."""
    package = name.replace("-", "_").lower()
    if not re.fullmatch(r"[a-z]([a-z0-9_]*[a-z0-9])?", package) or keyword.iskeyword(package):
        raise click.UsageError(
            f"{name} cannot be a Python package; use a to z, 0 to 9 and -, begin with a to z"
            " and end with neither - nor _"
        )
    if package == "app" or _is_taken(package):
        raise click.UsageError(f"{name} would hide, or be hidden by, a module; choose another name")
    folder = Path(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise click.UsageError(f"{name} exists and is not an empty folder; choose another name")
    url = transport or f"sqlite:///{package}.db"
    parsed = TransportURL.parse(url)
    if parsed.safe != url:
        raise click.UsageError(
            "the URL contains a secret, which would be written to a file; leave it out"
            " here, and set PROTOFLOW_TRANSPORT where the service runs"
        )
    extra = next((one.extra for one in BUILT_IN if parsed.scheme in one.schemes), "")
    for path, text in files.of(name, package, url, extra).items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        click.echo(f"wrote {file}")
    if start:
        first_start.start(ctx, folder, http)
    click.echo(f"next:\n  cd {name}\n  protoflow generate\n  protoflow run app", err=True)
