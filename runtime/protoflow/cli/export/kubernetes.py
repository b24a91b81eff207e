"""Manifests for Kubernetes: https://kubernetes.io/docs/reference/kubernetes-api/."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from protoflow.cli.export.grace import grace_period
from protoflow.config import Config
from protoflow.dataclass_record import dataclass_record
from protoflow.error_codes import EXPORT
from protoflow.errors import ConfigError

#: A manifest as plain data.
Manifest = dict[str, Any]

#: The port of the probes and pages, and that of the metrics, if the settings name none.
_HTTP_PORT, _METRICS_PORT = 8080, 9090
#: Seconds for a start beyond `connect_timeout`.
_START = 10
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,51}[a-z0-9])?")
_CONFIG_DIR, _CONFIG_FILE = "/etc/protoflow", "protoflow.toml"


@dataclass_record
class Workload:
    """What the manifests need beside the settings.

    Attributes:
        name: the name of all objects.
        target: `MODULE[:SERVICE]`, as `protoflow run` takes it.
        image: the image of the service.
        replicas: the number of processes.
        has_file: whether the Secret also holds a file of settings.
    """

    name: str
    target: str = ""
    image: str = ""
    replicas: int = 2
    has_file: bool = False

    @property
    def secret(self) -> str:
        """The Secret with the URL of the broker (`transport`) and the file of settings."""
        return f"{self.name}-settings"


def named(name: str) -> str:
    """Returns a name for objects of Kubernetes. Raises ConfigError."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"--name {name!r} cannot name an object of Kubernetes: use at most 53 lowercase"
            " letters, digits and hyphens, a letter first and no hyphen last",
            code=EXPORT,
        )
    return name


def manifests(workload: Workload, config: Config, *, pod_monitor: bool) -> Iterator[Manifest]:
    """Yields the objects of a service: its processes, their budget and their metrics."""
    yield _object("apps/v1", "Deployment", workload, spec=_deployment(workload, config))
    yield _object(
        "policy/v1",
        "PodDisruptionBudget",
        workload,
        spec={"maxUnavailable": 1, "selector": {"matchLabels": _labels(workload)}},
    )
    if pod_monitor:
        yield _object(
            "monitoring.coreos.com/v1",
            "PodMonitor",
            workload,
            spec={
                "selector": {"matchLabels": _labels(workload)},
                "podMetricsEndpoints": [_metrics(workload, config)],
            },
        )


def _metrics(workload: Workload, config: Config) -> Manifest:
    endpoint: Manifest = {"port": "metrics", "path": "/metrics"}
    if config.http_token or config.http_read_token:
        credentials = {"name": workload.secret, "key": "http_read_token"}
        endpoint["authorization"] = {"credentials": credentials}
    return endpoint


def _object(api: str, kind: str, workload: Workload, **content: Any) -> Manifest:
    metadata = {"name": workload.name, "labels": _labels(workload)}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **content}


def _labels(workload: Workload) -> Mapping[str, str]:
    return {"app.kubernetes.io/name": workload.name}


def _deployment(workload: Workload, config: Config) -> Manifest:
    pod: Manifest = {
        "terminationGracePeriodSeconds": grace_period(config),
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(workload, config)],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    if workload.has_file:
        items = [{"key": _CONFIG_FILE, "path": _CONFIG_FILE}]
        secret = {"secretName": workload.secret, "items": items}
        pod["volumes"].append({"name": "settings", "secret": secret})
    return {
        "replicas": workload.replicas,
        "selector": {"matchLabels": _labels(workload)},
        # A process that starts takes work from the others only when it is ready.
        "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": {"metadata": {"labels": _labels(workload)}, "spec": pod},
    }


def _container(workload: Workload, config: Config) -> Manifest:
    ports = {
        "http": config.http_port or _HTTP_PORT,
        "metrics": config.metrics_port or _METRICS_PORT,
    }
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108  of the container
    if workload.has_file:
        mounts.append({"name": "settings", "mountPath": _CONFIG_DIR})
    return {
        "name": "service",
        "image": workload.image,
        "args": ["run", workload.target, "--log-format", "json"],
        "env": [*_environment(workload, ports)],
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
        # The first start may wait for the broker for as long as `connect_timeout`.
        "startupProbe": _probe("/healthz", 1, math.ceil(config.connect_timeout) + _START),
        "livenessProbe": _probe("/healthz", 10, 3),
        "readinessProbe": _probe("/readyz", 5, 2),
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"memory": "512Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


def _environment(workload: Workload, ports: Mapping[str, int]) -> Iterator[Manifest]:
    url: Manifest = {"name": workload.secret, "key": "transport"}
    if workload.has_file:
        url["optional"] = True  # the file may name the transport
    yield {"name": "PROTOFLOW_TRANSPORT", "valueFrom": {"secretKeyRef": url}}
    # The kubelet and Prometheus ask from outside of the container.
    yield {"name": "PROTOFLOW_HTTP_HOST", "value": "0.0.0.0"}  # noqa: S104
    for name, port in ports.items():
        yield {"name": f"PROTOFLOW_{name.upper()}_PORT", "value": str(port)}
    if workload.has_file:
        yield {"name": "PROTOFLOW_CONFIG", "value": f"{_CONFIG_DIR}/{_CONFIG_FILE}"}


def _probe(path: str, seconds: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": seconds,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }
