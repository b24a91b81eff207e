"""Names of the .proto world turned into names of the Python world."""

from __future__ import annotations

import keyword
import re
from functools import cache

_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

# `keyword` knows the keywords of the Python that runs the plugin. Those of later ones
# would have to be added here for the output not to depend on it; there are none.
_HARD_KEYWORDS = frozenset(keyword.kwlist)


def is_keyword(name: str) -> bool:
    """Whether Python refuses the name everywhere; soft keywords are no keywords here."""
    return name in _HARD_KEYWORDS


@cache
def snake_case(name: str) -> str:
    """`BillOrder` is `bill_order`."""
    return _HUMPS.sub("_", name).lower()


def method_name(rpc: str) -> str:
    """The Python method of an rpc; `Import` is `import_`."""
    name = snake_case(rpc)
    return f"{name}_" if is_keyword(name) else name


def publish_name(message: str) -> str:
    """The producer method of a message, `Order.Line` is `publish_order_line`."""
    return "publish_" + "_".join(snake_case(part) for part in message.split("."))


def service_stem(service: str) -> str:
    """What the classes of a service begin with: its name less a trailing `Service`."""
    return service.removesuffix("Service") or service


def event_stem(path: str) -> str:
    """What the event producer of a file begins with; `shop/order-events.proto` is `Order`."""
    stem = path.rpartition("/")[2].removesuffix(".proto")
    words = stem.replace("-", "_").replace(".", "_").split("_")
    name = "".join([word[:1].upper() + word[1:] for word in words])
    for suffix in ("Events", "Event"):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


def module_stem(path: str) -> str:
    """A .proto path as a Python module path without suffix, by protoc's own rule."""
    return path.removesuffix(".proto").replace("-", "_").replace("/", ".")


def bad_module_segment(module: str) -> str | None:
    """The first segment that no import statement can name, if any."""
    for segment in module.split("."):
        if is_keyword(segment) or not segment.isidentifier():
            return segment
    return None
