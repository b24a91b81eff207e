"""The service: it runs handlers, publishes messages and reports its state.

Names are loaded when first used, because a module of this package does not need all others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protoflow.observability.health import Health as Health
    from protoflow.service.service import Service as Service
else:

    def __getattr__(name: str) -> object:
        if name == "Health":
            from protoflow.observability.health import Health

            return Health
        if name == "Service":
            from protoflow.service.service import Service

            return Service
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
