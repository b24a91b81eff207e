"""The settings of a process.

Names are loaded when first used, because a module of this package does not need all others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protoflow.config.settings import Config as Config
else:

    def __getattr__(name: str) -> object:
        if name not in ("Config",):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from protoflow.config import settings

        return getattr(settings, name)
