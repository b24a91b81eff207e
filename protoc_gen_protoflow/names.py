"""Converts names of .proto files to Python names."""

from __future__ import annotations

import keyword
import re
from collections.abc import Container, Iterator
from functools import cache

_PROTO_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

# `keyword` has the keywords of the Python that runs the plugin. Keywords of later versions must be
# added here, so that the output does not depend on the version. So far there are none.
_HARD_KEYWORDS = frozenset(keyword.kwlist)


def is_keyword(name: str) -> bool:
    """Returns whether Python always refuses the name; soft keywords are not included."""
    return name in _HARD_KEYWORDS


@cache
def snake_case(name: str) -> str:
    """Converts `BillOrder` to `bill_order`."""
    return _HUMPS.sub("_", name).lower()


def method_name(rpc: str) -> str:
    """Returns the Python method of an rpc; `Import` becomes `import_`."""
    name = snake_case(rpc)
    return f"{name}_" if is_keyword(name) else name


def publish_name(message: str) -> str:
    """Returns the producer method of a message; `Order.Line` becomes `publish_order_line`."""
    return "publish_" + "_".join(snake_case(part) for part in message.split("."))


def service_stem(service: str) -> str:
    """Returns the first part of the class names of a service: its name without `Service`."""
    return service.removesuffix("Service") or service


def event_producer(path: str, taken: Container[str] = ()) -> str:
    """Returns the event producer of a file; `shop/order-events.proto` has `OrderEventProducer`.

    Args:
        path: the path of the .proto.
        taken: the classes of its services, whose names the producer must not have.
    """
    return next(name for name in _event_producers(path) if name not in taken)


def _event_producers(path: str) -> Iterator[str]:
    stem = _stem(path).rpartition("/")[2]
    words = stem.replace("-", "_").replace(".", "_").split("_")
    name = "".join([word[:1].upper() + word[1:] for word in words])
    if name[:1].isdigit():
        name = f"File{name}"
    short = next(
        (name.removesuffix(end) for end in ("Events", "Event") if name.endswith(end)), name
    )
    yield f"{short}EventProducer"
    yield f"{name}EventProducer"
    yield f"{name}FileEventProducer"
    number = 2
    while True:
        yield f"{name}File{number}EventProducer"
        number += 1


def _stem(path: str) -> str:
    suffix = ".protodevel" if path.endswith(".protodevel") else ".proto"
    return path.removesuffix(suffix)


def module_stem(path: str) -> str:
    """Returns a .proto path as a Python module path without suffix, by protoc's own rule."""
    return _stem(path).replace("-", "_").replace("/", ".")


def bad_module_segment(module: str) -> str | None:
    """Returns the first segment that is not allowed in an import statement, if any."""
    for segment in module.split("."):
        if is_keyword(segment) or not segment.isidentifier() or not is_normal(segment):
            return segment
    return None


def is_normal(name: str) -> bool:
    """Returns whether Python keeps a name unchanged; it normalises some names."""
    if name.isascii():
        return True
    from unicodedata import normalize

    return normalize("NFKC", name) == name


def is_proto_name(name: str) -> bool:
    """Returns whether a .proto can contain the name, with or without its scopes."""
    return _PROTO_NAME.fullmatch(name) is not None
