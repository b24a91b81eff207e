"""`protoflow asyncapi`."""

from __future__ import annotations

from pathlib import Path

import click

from protoflow import asyncapi, deployment
from protoflow.asyncapi import Payload, Perspective
from protoflow.cli import contract, settings


@click.command("asyncapi")
@settings.connects
@settings.reads_contract
@settings.prints_json
@click.option("--html", metavar="FILE", help="Write an HTML page to this file; - is stdout.")
@click.option(
    "--payload",
    type=click.Choice([str(one) for one in Payload]),
    default=str(Payload.JSONSCHEMA),
    help="Describe payloads as JSON Schema or as protobuf.",
)
@click.option(
    "--perspective",
    type=click.Choice([str(one) for one in Perspective]),
    default=str(Perspective.SERVICE),
    help="Describe the service or its clients; clients send what the service receives.",
)
@click.option("--static", is_flag=True, help="Describe the .proto files without settings.")
@click.option("--title", default="", help="Title; by default the package or the .proto file.")
@click.option("--doc-version", default="", help="Version; by default that of the package.")
def command(
    transport: str | None,
    config_file: str | None,
    contract_name: str | None,
    as_json: bool,
    html: str | None,
    payload: str,
    perspective: str,
    static: bool,
    title: str,
    doc_version: str,
) -> None:
    """Print an AsyncAPI 3.1 document of the contract under the settings, as YAML.

    The document has topics, groups, policies, servers and bindings, but no user, password or token.
    The command does not connect to the broker.
    """
    if static and (transport or config_file):
        raise click.UsageError("--static leaves the settings out; omit --transport and --config")
    if html and as_json:
        raise click.UsageError("--html writes a page; omit --json")
    catalog = contract.load(contract_name)
    config = None if static else settings.config_of(transport, config_file)
    document = asyncapi.document(
        catalog,
        None if config is None else deployment.deployment_of(catalog, config),
        title=title,
        version=doc_version,
        payload=Payload(payload),
        perspective=Perspective(perspective),
        comments=asyncapi.comments_of(catalog),
    )
    if html and html != "-":
        Path(html).write_text(asyncapi.to_html(document), encoding="utf-8")
        click.echo(f"wrote {html}", err=True)
    elif html:
        click.echo(asyncapi.to_html(document), nl=False)
    else:
        write = asyncapi.to_json if as_json else asyncapi.to_yaml
        click.echo(write(document), nl=False)
