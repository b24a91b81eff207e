"""Records: frozen dataclasses with keywords and slots, whose declaration is cheap.

`@dataclass` writes and compiles six functions for each class, which takes half a millisecond each
time the module is loaded. Records share these functions. They are a little slower, so records are
made at start and never for a message. Otherwise records are dataclasses: `fields`, `replace` and
`asdict` accept them, and type checkers know them.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field
from typing import Any, ClassVar, NoReturn, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def dataclass_record(cls: type[T]) -> type[T]:
    """Like `@dataclass(frozen=True, slots=True, kw_only=True)`."""
    for name, function in _SHARED.items():
        if name not in cls.__dict__:
            setattr(cls, name, function)
    return dataclass(init=False, repr=False, eq=False, kw_only=True, slots=True)(cls)


class _Record:
    """The functions that records share. Records do not inherit them."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __init__(self, /, **values: Any) -> None:
        for name, item in self.__dataclass_fields__.items():
            if name in values:
                value = values.pop(name)
            elif item.default is not MISSING:
                value = item.default
            elif item.default_factory is not MISSING:
                value = item.default_factory()
            else:
                raise TypeError(f"{type(self).__name__}() lacks the argument {name!r}")
            object.__setattr__(self, name, value)
        if values:
            raise TypeError(f"{type(self).__name__}() has no argument {', '.join(values)!r}")

    def __repr__(self) -> str:
        names = (item.name for item in self.__dataclass_fields__.values() if item.repr)
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__qualname__}({values})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(
            getattr(self, name) == getattr(other, name) for name in self.__dataclass_fields__
        )

    def __hash__(self) -> int:
        items = self.__dataclass_fields__.items()
        return hash(tuple(getattr(self, name) for name, item in items if item.hash is not False))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def __setstate__(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)


_SHARED = {
    name: _Record.__dict__[name]
    for name in (
        *("__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__"),
        *("__getstate__", "__setstate__"),
    )
}
