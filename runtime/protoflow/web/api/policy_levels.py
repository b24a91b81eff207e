"""The level of the `.proto` that sets each value of a policy: its file, service or method.

The specification of a handler holds one merged policy. The dashboard shows where a value
comes from, so it reads the annotations themselves; nothing else depends on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf import descriptor_pool

from protoflow.v1 import options_pb2
from protoflow.v1.numbers import annotation


def levels(handler: str) -> Mapping[str, str]:
    """Returns the level of each value that the contract of a handler sets, by its name, such as
    `retry.max_attempts`; empty for handlers without an rpc."""
    service_name, _, name = handler.rpartition(".")
    try:
        service: Any = descriptor_pool.Default().FindServiceByName(service_name)
        method = service.methods_by_name[name]
    except KeyError:
        return {}
    policies = (
        ("file", annotation(service.file.GetOptions(), options_pb2.file).delivery),
        ("service", annotation(service.GetOptions(), options_pb2.service).delivery),
        ("method", annotation(method.GetOptions(), options_pb2.consume).delivery),
    )
    return {leaf: level for level, policy in policies for leaf in _set_in(policy)}


def _set_in(policy: Any, prefix: str = "") -> Iterator[str]:
    for field, value in policy.ListFields():
        if field.message_type is not None and field.message_type.file is policy.DESCRIPTOR.file:
            yield from _set_in(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name
