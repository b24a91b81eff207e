"""Names at the broker: injective, within a charset and a length.

Topics, groups and namespaces are made of `[A-Za-z0-9._-]` and have no empty segment between
dots. Therefore two dots part them in every derived name (`<topic>..<group>..dead`), and three
dots stand only before the hash of a name that was cut: no two names ever become one.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

from protoflow.contract import topics

#: 80 bits, as 16 letters and digits.
_HASH_BYTES = 10
_HASH_LENGTH = 16
_CUT = "..."
#: For brokers that allow no dots: `.` is written `_`, and `_` is written `=`.
_WITHOUT_DOTS = str.maketrans("._", "_=")


def join(*parts: str) -> str:
    """A derived name: the parts with two dots between them."""
    return "..".join(parts)


def namespaced(namespace: str, name: str) -> str:
    """The name below a namespace; an empty one is none."""
    return join(namespace, name) if namespace else name


def seconds(step: float) -> str:
    """A number of seconds as it stands in names: `5`, `0.5`."""
    return str(int(step)) if step == int(step) else f"{step:f}".rstrip("0")


def fit(name: str, limit: int) -> str:
    """The name, cut to `limit` characters with a hash as suffix if it is longer."""
    if len(name) <= limit:
        return name
    return f"{name[: limit - _HASH_LENGTH - len(_CUT)].rstrip('.')}{_CUT}{digest(name)}"


def without_dots(name: str, limit: int) -> str:
    """The name in letters, digits, `_`, `-` and `=`, for brokers that allow no dots."""
    return fit(name, limit).translate(_WITHOUT_DOTS)


def digest(name: str) -> str:
    """A hash of a name: 16 lower-case letters and digits, 80 bits."""
    raw = hashlib.sha256(name.encode()).digest()[:_HASH_BYTES]
    return base64.b32encode(raw).decode().lower()


class NameResolver:
    """Fills the variables in topics and groups, and collects what is wrong with them.

    Args:
        namespace: goes before every physical name; empty is none.
        variables: the values of the variables.
    """

    def __init__(self, namespace: str, variables: Mapping[str, str]) -> None:
        self._namespace = namespace
        self._variables = variables
        self.problems: list[str] = []

    def physical(self, template: str, what: str) -> str:
        """Returns the topic or group with its variables filled, below the namespace."""
        filled = self.fill(template, what)
        if wrong := topics.problem(filled):
            if "{" not in filled:
                self.problems.append(f"{what}: {wrong}")
            return filled
        return namespaced(self._namespace, filled)

    def fill(self, template: str, what: str, extra: Mapping[str, str] | None = None) -> str:
        """Returns the template with its variables filled."""
        filled, missing = topics.fill(template, {**self._variables, **(extra or {})})
        self.problems += [
            f"{what}: {template!r} needs the variable {name}; set variables.{name}"
            for name in missing
        ]
        return filled
