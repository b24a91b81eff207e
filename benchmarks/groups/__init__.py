"""The groups of rows: what is measured together and can be run alone."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.groups import (
    brokers,
    counts,
    databases,
    embedded,
    latency,
    scaling,
    tools,
    transform,
)
from benchmarks.model import Form, Group

#: Name -> what makes the group in a form.
GROUPS: dict[str, Callable[[Form], Group]] = {
    "kafka": brokers.kafka,
    "transform": transform.transform,
    "outputs": transform.outputs,
    "nats": brokers.nats,
    "jetstream": brokers.jetstream,
    "rabbitmq": brokers.rabbitmq,
    "redis": brokers.redis,
    "postgresql": databases.postgresql,
    "outbox": databases.outbox,
    "latency": latency.latency,
    "memory": embedded.memory,
    "sqlite": embedded.sqlite,
    "flat": scaling.flat,
    "concurrency": scaling.concurrency,
    "processes": scaling.processes,
    "starting": scaling.starting,
    "keys": scaling.keys,
    "codegen": tools.codegen,
    "imports": tools.imports,
    "counts": counts.counts,
}
