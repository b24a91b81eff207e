"""Writes plain data as JSON, and as YAML that YAML 1.1 and 1.2 read alike."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: Text that every reader takes for text without quotes.
_PLAIN = re.compile(r"[$A-Za-z_/][A-Za-z0-9_./+-]*(?: [A-Za-z0-9_./+-]+)*|[0-9]+(?:\.[0-9]+)?s")
#: Words that YAML 1.1 takes for booleans, null or numbers.
_WORDS = re.compile(r"(?i:y|n|yes|no|on|off|true|false|null|nan|inf|infinity)")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def to_json(document: Mapping[str, Any]) -> str:
    """Returns the document as indented JSON."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_yaml(document: Mapping[str, Any]) -> str:
    """Returns the document as YAML in block style."""
    return "\n".join(_lines(document)) + "\n"


def _lines(value: Any) -> Iterator[str]:
    """Yields the lines of a value without a key."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _headed(f"{_text(str(key))}:", item)
    elif _is_sequence(value) and value:
        for item in value:
            yield from _item(item)
    else:
        yield _scalar(value)


def _headed(head: str, value: Any) -> Iterator[str]:
    """Yields the lines of a value after its key."""
    if isinstance(value, str) and _is_block(value):
        yield f"{head} {_block_mark(value)}"
        yield from _indented(value.removesuffix("\n").split("\n"))
    elif value and (isinstance(value, Mapping) or _is_sequence(value)):
        yield head
        yield from _indented(_lines(value))
    else:
        yield f"{head} {_scalar(value)}"


def _item(value: Any) -> Iterator[str]:
    """Yields the lines of an item of a sequence; the dash replaces its indentation."""
    if isinstance(value, str) and _is_block(value):
        yield from _headed("-", value)
        return
    first, *rest = _lines(value)
    yield f"- {first}"
    yield from _indented(rest)


def _indented(lines: Iterator[str] | Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield f"  {line}" if line else ""


def _scalar(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _number(value)
        case str():
            return _text(value)
        case Mapping():
            return "{}"
        case _ if _is_sequence(value):
            return "[]"
    raise TypeError(f"{type(value).__name__} has no form in YAML")


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError(f"{value} has no form in JSON")
    text = repr(value)
    # YAML 1.1 takes `1e-07` for text, and `1.0e-07` for a number.
    return text if "." in text or "e" not in text else text.replace("e", ".0e")


def _text(value: str) -> str:
    if _PLAIN.fullmatch(value) and not _WORDS.fullmatch(value):
        return value
    return f'"{"".join(map(_character, value))}"'


def _character(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )


def _is_block(value: str) -> bool:
    """Returns whether YAML can write a text of several lines as a block."""
    lines = value.removesuffix("\n").split("\n")
    return (
        len(lines) > 1
        and lines[0][:1] not in ("", " ")
        and lines[-1] != ""
        and all(
            not line or (line.isprintable() and line.strip() == line.lstrip()) for line in lines
        )
        and any(lines)
    )


def _block_mark(value: str) -> str:
    return "|" if value.endswith("\n") else "|-"


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
