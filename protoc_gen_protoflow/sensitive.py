"""Paths of the fields that never reach logs, through messages in messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protoc_gen_protoflow.request import Declared, Request, options_pb2

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto


class SensitivePaths:
    """Finds sensitive fields; `card.number` is the field `number` in the field `card`.

    Repeated fields and maps are no segments of a path: it goes through all of their
    values. Where types recur, the paths would never end: there the field that leads back
    into a type with something sensitive in it is sensitive as a whole.
    """

    def __init__(self, request: Request) -> None:
        self._messages = request.messages
        self._fields: dict[str, tuple[set[str], dict[str, Declared]]] = {}
        self._reaches: dict[str, bool] = {}

    def of(self, declared: Declared) -> tuple[str, ...]:
        """The sensitive paths of a message."""
        if not self._reaches_sensitive(declared):
            return ()
        return tuple(self._paths(declared, "", frozenset()))

    def _paths(self, declared: Declared, prefix: str, above: frozenset[str]) -> list[str]:
        sensitive, messages = self._of_fields(declared)
        above |= {declared.full_name}
        paths: list[str] = []
        for field in declared.proto.field:
            path = prefix + field.name
            inner = messages.get(field.name)
            if field.name in sensitive:
                paths.append(path)
            elif inner is not None and self._reaches_sensitive(inner):
                if inner.full_name in above:
                    paths.append(path)
                else:
                    paths += self._paths(inner, f"{path}.", above)
        return paths

    def _reaches_sensitive(self, declared: Declared) -> bool:
        seen = {declared.full_name}
        waiting = [declared]
        reaches = False
        while waiting and not reaches:
            message = waiting.pop()
            known = self._reaches.get(message.full_name)
            if known is not None:
                reaches = known
                continue
            sensitive, messages = self._of_fields(message)
            reaches = bool(sensitive)
            waiting += [inner for inner in messages.values() if inner.full_name not in seen]
            seen.update([inner.full_name for inner in messages.values()])
        if reaches:
            self._reaches[declared.full_name] = True
        else:
            # All that was seen leads nowhere else.
            self._reaches.update(dict.fromkeys(seen, False))
        return reaches

    def _of_fields(self, declared: Declared) -> tuple[set[str], dict[str, Declared]]:
        """The sensitive fields of a message, and the messages of the others."""
        found = self._fields.get(declared.full_name)
        if found is None:
            sensitive: set[str] = set()
            messages: dict[str, Declared] = {}
            for field in declared.proto.field:
                if _is_sensitive(field):
                    sensitive.add(field.name)
                elif field.type_name and (inner := self._messages.get(field.type_name)):
                    if inner.proto.options.map_entry:
                        value = inner.proto.field[1].type_name
                        if value not in self._messages:
                            continue
                        inner = self._messages[value]
                    messages[field.name] = inner
            found = self._fields[declared.full_name] = (sensitive, messages)
        return found


def _is_sensitive(field: FieldDescriptorProto) -> bool:
    return field.HasField("options") and field.options.Extensions[options_pb2.field].sensitive
