"""The router of a subscription: from a message to the compiled handler that it is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from protoflow import wire
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
        """The route that stands for the subscription, for messages that have none."""
        return self.all[0]

    def find(self, message: Message) -> Route | None:
        """The route of a message that does not simply name a known type; None: nobody
        handles its type. Raises DecodeError when it names none and several are possible.
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
            f"send the header {wire.CE_TYPE}"
        )

    def type_of(self, message: Message) -> str | None:
        """The type that a message names, in our words or in those of others."""
        metadata = message.metadata
        schema = metadata.get(wire.GO_SCHEMA)
        # First, for the Go runtime sets it always, beside a `ce_type` that may be its input's.
        if schema and (known := self._known(schema)):
            return known
        if name := metadata.get(wire.CE_TYPE) or schema:
            return self._type_names.get(name, name)
        if name := metadata.get(wire.WATERMILL_NAME):
            # Many a header is called `name`: without Watermill's id only a known one counts.
            return self._known(name) or (name if wire.WATERMILL_ID in metadata else None)
        return None

    def _known(self, foreign: str) -> str | None:
        """The type that a name of another language stands for, if that is plain."""
        if mapped := self._type_names.get(foreign):
            return mapped
        name = foreign.lstrip("*")
        if name in self.by_type:
            return name
        # Go writes `*pkg.Type`, its package without dots: taken for the only type that ends so.
        package, _, short = name.rpartition(".")
        if "." in package:
            return None
        matches = [known for known in self.by_type if known.rpartition(".")[2] == short]
        return matches[0] if len(matches) == 1 else None
