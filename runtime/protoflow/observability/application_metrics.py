"""Metrics that the application makes with prometheus_client, of all processes of the machine.

The processes write them to files in PROMETHEUS_MULTIPROC_DIR:
https://prometheus.github.io/client_python/multiprocess/
"""

from __future__ import annotations

import os

from protoflow.errors import MissingExtraError

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
except ImportError as error:
    raise MissingExtraError("metrics", "prometheus_client") from error


def add_application_metrics(registry: CollectorRegistry) -> None:
    """Adds the metrics in PROMETHEUS_MULTIPROC_DIR to a registry, if there is such a directory."""
    if os.path.isdir(os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")):
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # has no types


def forget_process(pid: int) -> None:
    """Removes the gauges of a process that has ended; its counters stay."""
    mark_process_dead(pid)  # type: ignore[no-untyped-call]  # has no types
