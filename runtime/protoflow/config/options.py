"""The options of a transport: a frozen dataclass filled from the URL and the config.

A field's type determines the accepted values: str, int, float, bool, an Enum (by value), Secret,
a dataclass of such fields (a table), `tuple[X, ...]` (separated by commas in a URL), each also as
`X | None`. A float may be written as a duration: `250ms`, `30s`, `5m`, `1h`, `7d`.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from protoflow.config.secret import Secret
from protoflow.error_codes import TRANSPORT_OPTION
from protoflow.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)")
_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def parse_options(
    cls: type[T], query: Mapping[str, str], options: Mapping[str, Any], transport: str
) -> T:
    """Returns an instance of `cls`; the URL's query overrides the config's options.

    `cls` may have a mapping `RENAMED` from old option names to new ones. Its `__post_init__` may
    raise ConfigError or ValueError for values that contradict each other. Raises ConfigError, which
    names every mistake but no secret.
    """
    try:
        return _filled(cls, {**options, **query})
    except ConfigError as error:
        raise ConfigError(
            (f"transport: {transport}: {problem}" for problem in error.problems),
            code=TRANSPORT_OPTION,
        ) from None


def _filled(cls: type[T], given: Mapping[str, Any]) -> T:
    """Returns an instance of `cls` with these values. Raises ConfigError with every mistake."""
    hints = typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls) if field.init]
    problems: list[str] = []
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            renamed = getattr(cls, "RENAMED", {})
            problems.append(_renamed(name, renamed) if name in renamed else _unknown(name, known))
            continue
        try:
            values[name] = convert(hints[name], value)
        except ValueError as error:
            problems.append(f"option {name}: {error}")
    problems += [
        f"option {field.name} is missing"
        for field in dataclasses.fields(cls)
        if field.init
        and field.name not in given
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if problems:
        raise ConfigError(problems)
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def parse_duration(text: str) -> float:
    """Returns the seconds of `250ms`, `30s`, `5m`, `1h30m`, `7d` or a number. Raises ValueError."""
    position, total = 0, 0.0
    text = text.strip().lower()
    while match := _DURATION.match(text, position):
        if match[2] not in _UNITS or (match[2] == "" and match[0] != text):
            break
        total += float(match[1]) * _UNITS[match[2]]
        position = match.end()
    if not text or position < len(text):
        raise ValueError("must be a number or a duration such as 250ms, 30s, 5m or 1h")
    return total


def _renamed(name: str, renamed: Mapping[str, str]) -> str:
    return f"option {name} was renamed to {renamed[name]}"


def _unknown(name: str, known: list[str]) -> str:
    hint = did_you_mean(name, known)
    return f"unknown option {name!r}{hint} (known: {', '.join(sorted(known)) or 'none'})"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns `; did you mean X?` for an unknown name, or an empty text."""
    import difflib  # imported here, because only mistakes need it

    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


def convert(kind: Any, value: Any) -> Any:
    """Converts `value` to `kind`. Raises ValueError with a text that does not contain the value."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        inner = [part for part in typing.get_args(kind) if part is not type(None)]
        return None if value is None or value == "" else convert(inner[0], value)
    if typing.get_origin(kind) is tuple:
        return tuple(convert(typing.get_args(kind)[0], item) for item in _items(value))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _member(kind, value)
    if dataclasses.is_dataclass(kind):
        return _table(kind, value)
    return _CONVERTERS[kind](value)


def _table(kind: Any, value: Any) -> Any:
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("must be a table")
    try:
        return _filled(kind, value)
    except ConfigError as error:
        raise ValueError("; ".join(error.problems)) from None


def _items(value: Any) -> Iterator[Any]:
    if isinstance(value, str):
        return (item.strip() for item in value.split(",") if item.strip())
    if isinstance(value, list | tuple):
        return iter(value)
    raise ValueError("must be a list, or text separated by commas")


def _member(kind: type[enum.Enum], value: Any) -> enum.Enum:
    for member in kind:
        if member is value or str(member.value) == str(value).lower():
            return member
    raise ValueError(f"must be one of {', '.join(str(member.value) for member in kind)}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value


def _secret(value: Any) -> Secret:
    return value if isinstance(value, Secret) else Secret(_text(value))


def _integer(value: Any) -> int:
    try:
        if isinstance(value, bool | float):
            raise ValueError
        return int(value)
    except (TypeError, ValueError):
        raise ValueError("must be a whole number") from None


def _number(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    else:
        number = parse_duration(_text(value))
    if not math.isfinite(number):
        raise ValueError("must be a finite number")
    return number


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    raise ValueError("must be true or false")


_CONVERTERS = {
    str: _text,
    int: _integer,
    float: _number,
    bool: _boolean,
    Secret: _secret,
}
