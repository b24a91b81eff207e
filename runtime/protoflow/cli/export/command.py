"""`protoflow export`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from protoflow import asyncapi
from protoflow.cli import contract, plan, settings
from protoflow.cli.export import keda, kubernetes, systemd
from protoflow.cli.export.keda import Scale
from protoflow.cli.export.kubernetes import Workload

_name = click.option("--name", required=True, help="Name of the objects.")
_target = click.argument("target", metavar="MODULE[:SERVICE]")


@click.group("export")
def command() -> None:
    """Print manifests of a service for Kubernetes, KEDA or systemd, without a broker.

    No user, password or token is printed: the manifests name the Secret that holds them.
    """


@command.command("k8s")
@_target
@_name
@settings.connects
@click.option("--image", required=True, help="Image of the service.")
@click.option("--replicas", type=click.IntRange(1), default=2, help="Processes; 2 by default.")
@click.option("--pod-monitor", is_flag=True, help="Add a PodMonitor of the Prometheus Operator.")
def for_kubernetes(
    target: str,
    name: str,
    transport: str | None,
    config_file: str | None,
    image: str,
    replicas: int,
    pod_monitor: bool,
) -> None:
    """Print a Deployment with probes and its PodDisruptionBudget.

    The Secret NAME-settings holds the URL of the broker (key `transport`) and, if there is one, the
    file of settings (key `protoflow.toml`).
    """
    config = settings.config_of(transport, config_file)
    has_file = settings.file_of(config_file) is not None
    workload = Workload(
        name=kubernetes.named(name),
        target=target,
        image=image,
        replicas=replicas,
        has_file=has_file,
    )
    content = "--from-file=protoflow.toml" if has_file else "--from-literal=transport=URL"
    click.echo(f"needs: kubectl create secret generic {workload.secret} {content}", err=True)
    _print(kubernetes.manifests(workload, config, pod_monitor=pod_monitor))


@command.command("keda")
@_name
@settings.connects
@settings.reads_contract
@click.option("--min", "least", type=click.IntRange(0), default=1, help="Fewest processes.")
@click.option("--max", "most", type=click.IntRange(1), default=10, help="Most processes.")
@click.option("--lag", type=click.IntRange(1), default=1000, help="Waiting messages a process.")
@click.option("--prometheus", default="", metavar="URL", help="Read the lag there.")
def for_keda(
    name: str,
    transport: str | None,
    config_file: str | None,
    contract_name: str | None,
    **scale: Any,
) -> None:
    """Print a ScaledObject that scales the Deployment NAME by the lag of its groups."""
    if scale["least"] > scale["most"]:
        raise click.UsageError(f"--min {scale['least']} is above --max {scale['most']}")
    if scale["prometheus"] and not scale["least"]:
        raise click.UsageError(
            "--min 0 needs the lag at the broker: without a process, nothing reports it to"
            " Prometheus"
        )
    config = settings.config_of(transport, config_file)
    subscriptions = plan.planned(contract.load(contract_name), config).topology.subscriptions
    workload = Workload(name=kubernetes.named(name))
    found = [*keda.manifests(workload, config, subscriptions, Scale(**scale))]
    if len(found) > 1:
        click.echo(
            f"needs: the keys username and password in the Secret {workload.secret}", err=True
        )
    _print(found)


@command.command("systemd")
@_target
@_name
@settings.connects
def for_systemd(target: str, name: str, transport: str | None, config_file: str | None) -> None:
    """Print a unit for a service in /opt/NAME."""
    config = settings.config_of(transport, config_file)
    file = settings.file_of(config_file)
    click.echo(systemd.unit(kubernetes.named(name), target, config, file), nl=False)


def _print(manifests: Iterable[Mapping[str, Any]]) -> None:
    click.echo("---\n".join(map(asyncapi.to_yaml, manifests)), nl=False)
