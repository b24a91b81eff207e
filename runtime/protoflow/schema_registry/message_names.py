"""Finds the name of a message in a schema, by the path that a frame contains."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

from protoflow.errors import DecodeError

_WORD: Final = re.compile(
    r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[\w.]+|[{}\[\];=<>]""", re.DOTALL
)


@dataclass(slots=True)
class _Scope:
    """A message or a file: its name, and the messages in it, in order."""

    name: str
    messages: list[_Scope] = field(default_factory=list)


def message_name(schema: str, path: Sequence[int]) -> str:
    """Returns the full name of a message.

    Args:
        schema: the text of a .proto file, or its descriptor in base64.
        path: the index of the message in the file, then in each message around it.

    Raises:
        DecodeError: the schema has no such message.
    """
    scope = _of_descriptor(schema) or _of_text(schema)
    names = [scope.name] if scope.name else []
    for index in path:
        if index >= len(scope.messages):
            place = ".".join(map(str, path))
            raise DecodeError(f"the schema has no message {place}")
        scope = scope.messages[index]
        names.append(scope.name)
    return ".".join(names)


def _of_descriptor(schema: str) -> _Scope | None:
    try:
        file = FileDescriptorProto.FromString(base64.b64decode(schema, validate=True))
    except Exception:  # a text is no base64; protobuf's errors differ by implementation
        return None
    return _Scope(file.package, list(map(_of_message, file.message_type)))


def _of_message(message: DescriptorProto) -> _Scope:
    return _Scope(message.name, list(map(_of_message, message.nested_type)))


def _of_text(schema: str) -> _Scope:
    """Returns the messages of a text. Only `message`, `package` and braces matter."""
    file = _Scope("")
    #: The messages around a place; None for other braces.
    around: list[_Scope | None] = [file]
    words = list(_words(schema))
    for at, word in enumerate(words):
        if word == "package" and len(around) == 1 and words[at + 1 : at + 2] != ["="]:
            file.name = "".join(words[at + 1 : at + 2])
        elif word == "{":
            around.append(_opened(words, at, around[-1]))
        elif word == "}" and len(around) > 1:
            around.pop()
    return file


def _opened(words: Sequence[str], at: int, parent: _Scope | None) -> _Scope | None:
    """Returns the message that a brace opens; None if it opens something else."""
    if at < 2 or words[at - 2] != "message" or words[at - 1] == "=" or parent is None:
        return None  # `option (message) = {` opens no message either
    scope = _Scope(words[at - 1])
    parent.messages.append(scope)
    return scope


def _words(schema: str) -> Iterator[str]:
    """Yields the words without comments; of strings only the quotes."""
    for match in _WORD.finditer(schema):
        word = match[0]
        if word.startswith(("//", "/*")):
            continue
        yield '""' if word[0] in "\"'" else word
