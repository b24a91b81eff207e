"""The router of a subscription: it finds the compiled handler for a message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from protoflow import wire
from protoflow.error_codes import UNKNOWN_TYPE
from protoflow.errors import DecodeError
from protoflow.message import Message
from protoflow.scheduling.job import Route


class Router:
    """The routes of one subscription, by message type ("" is every type)."""

    def __init__(
        self, routes: Mapping[str, Route], all: Sequence[Route], type_names: Mapping[str, str]
    ) -> None:
        self.by_type = routes
        self.all = all
        self._type_names = type_names
        self._any = routes.get("")

    @property
    def first(self) -> Route:
        """Returns the route to use if a message has none."""
        return self.all[0]

    def find(self, message: Message) -> Route | None:
        """Returns the route of a message whose type is not directly known.

        Returns None if no handler takes its type. Raises DecodeError if the message names no type
        and several are possible.
        """
        name = self.type_of(message)
        route = self.by_type.get(name) if name else None
        if route is not None:
            return route
        if self._any is not None:
            return self._any
        if name:
            return None
        if len(self.all) == 1:
            return self.all[0]
        raise DecodeError(
            "the message names no type and the subscription handles several; "
            f"send the header {wire.CE_TYPE}",
            code=UNKNOWN_TYPE,
        )

    def type_of(self, message: Message) -> str | None:
        """Returns the type that a message names, in any supported header."""
        metadata = message.metadata
        schema = metadata.get(wire.GO_SCHEMA)
        # This header comes first: the Go runtime always sets it, and `ce_type` may be its input's.
        if schema and (known := self._known(schema)):
            return known
        if name := metadata.get(wire.CE_TYPE) or schema:
            return self._type_names.get(name, name)
        if name := metadata.get(wire.WATERMILL_NAME):
            # The header `name` is common: without Watermill's id, only a known type counts.
            return self._known(name) or (name if wire.WATERMILL_ID in metadata else None)
        return None

    def _known(self, foreign: str) -> str | None:
        """Returns the known type for a type name of another language, if exactly one fits."""
        if mapped := self._type_names.get(foreign):
            return mapped
        name = foreign.lstrip("*")
        if name in self.by_type:
            return name
        # Go writes `*pkg.Type` without the package's dots: the only type with that ending is taken.
        package, _, short = name.rpartition(".")
        if "." in package:
            return None
        matches = [known for known in self.by_type if known.rpartition(".")[2] == short]
        return matches[0] if len(matches) == 1 else None
