"""The contract of a program: all messages and methods of its generated modules, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from protoflow.contract.spec import FileSpec, MessageSpec, MethodSpec


class Catalog:
    """Looks up messages and methods.

    Args:
        files: the `__protoflow_spec__` of each generated module.

    Attributes:
        files: the files, each source once, sorted.
        messages: the messages by type, aliases excluded.
    """

    def __init__(self, files: Iterable[FileSpec]) -> None:
        by_source = {file.source: file for file in files}
        self.files = tuple(by_source[source] for source in sorted(by_source))
        self.messages: Mapping[str, MessageSpec] = {
            message.type: message for file in self.files for message in _messages(file)
        }
        self._aliases = {
            alias: message for message in self.messages.values() for alias in message.aliases
        }

    @property
    def methods(self) -> tuple[MethodSpec, ...]:
        """The consuming methods, in the order of the files."""
        return tuple(
            method for file in self.files for service in file.services for method in service.methods
        )

    def message(self, type: str) -> MessageSpec | None:
        """Returns the message for a CloudEvents type, an alias, or a name with which only one type
        ends: `OrderPlaced` for `shop.v1.OrderPlaced`."""
        found = self.messages.get(type) or self._aliases.get(type)
        if found is None:
            named = [spec for name, spec in self.messages.items() if name.endswith(f".{type}")]
            found = named[0] if len(named) == 1 else None
        return found


def _messages(file: FileSpec) -> Iterable[MessageSpec]:
    yield from file.messages
    for service in file.services:
        for method in service.methods:
            yield method.input
            if method.publication is not None:
                yield method.publication.message
