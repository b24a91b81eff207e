"""The logger of a handler's run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from typing import Any


class ContextLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds the fields of the run to each record; the `extra` of the call takes precedence."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        super().__init__(logging.getLogger("protoflow.handler"), fields)

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Merges both fields, because the standard adapter drops the `extra` of the call."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs
