"""`protoflow version`."""

from __future__ import annotations

import json
import platform
from importlib import metadata

import click

from protoflow import __version__

#: The libraries that affect the behavior of Protoflow.
_PACKAGES = (
    *("protobuf", "grpcio-tools", "protovalidate", "aiokafka", "aio-pika", "nats-py"),
    *("aiohttp", "prometheus-client", "opentelemetry-sdk", "click"),
)


@click.command("version")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> None:
    """Show the versions of Protoflow, Python and the libraries that it uses."""
    versions = {"protoflow": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if as_json:
        click.echo(json.dumps(versions))
        return
    width = max(map(len, versions))
    for name, version in versions.items():
        click.echo(f"{name.ljust(width)}  {version}")
