"""The logger of a handler's run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from typing import Any


class ContextLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds what is known of the run to each record, beneath the `extra` of the call."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        super().__init__(logging.getLogger("protoflow.handler"), fields)

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """The standard adapter would drop the `extra` of the call."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs
