"""The rights that a service needs at a broker that describes rights in documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from protoflow.transport.settings import Topology


@runtime_checkable
class PrintsPolicy(Protocol):
    """Optional: `protoflow topology policy` prints the smallest policy of a service."""

    def policy(self, topology: Topology) -> Mapping[str, Any]:
        """Returns the policy of a service whose topics and queues exist; the transport is open."""
        ...
