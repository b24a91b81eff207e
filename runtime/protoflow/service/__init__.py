"""The service: runs handlers, publishes, reports.

Names are loaded when first used: the modules beside this one need no more than each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protoflow.service.service import Health as Health
    from protoflow.service.service import Service as Service
else:

    def __getattr__(name: str) -> object:
        if name not in (
            "Health",
            "Service",
        ):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from protoflow.service import service

        return getattr(service, name)
