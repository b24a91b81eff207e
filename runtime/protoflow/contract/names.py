"""Names at the broker: unambiguous, and within the broker's characters and length.

Topics, groups and namespaces are made of `[A-Za-z0-9._-]` and have no empty segment between
dots. Therefore two dots separate them in every derived name (`<topic>..<group>..dead`), and three
dots only precede the hash of a shortened name. So two different names never become the same.
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
#: For brokers that allow no dots: `.` becomes `_`, and `_` becomes `=`.
_WITHOUT_DOTS = str.maketrans("._", "_=")


def join(*parts: str) -> str:
    """Returns a derived name: the parts joined with two dots."""
    return "..".join(parts)


def namespaced(namespace: str, name: str) -> str:
    """Returns the name below a namespace; an empty namespace changes nothing."""
    return join(namespace, name) if namespace else name


def seconds(step: float) -> str:
    """Returns a number of seconds as used in names: `5`, `0.5`."""
    return str(int(step)) if step == int(step) else f"{step:f}".rstrip("0")


def fit(name: str, limit: int) -> str:
    """Returns the name, cut to `limit` characters with a hash suffix if it is longer."""
    if len(name) <= limit:
        return name
    return f"{name[: limit - _HASH_LENGTH - len(_CUT)].rstrip('.')}{_CUT}{digest(name)}"


def without_dots(name: str, limit: int) -> str:
    """Returns the name without dots: letters, digits, `_`, `-` and `=`, for some brokers."""
    return fit(name, limit).translate(_WITHOUT_DOTS)


def digest(name: str) -> str:
    """Returns a hash of a name: 16 lower-case letters and digits, 80 bits."""
    raw = hashlib.sha256(name.encode()).digest()[:_HASH_BYTES]
    return base64.b32encode(raw).decode().lower()


class NameResolver:
    """Fills the variables in topics and groups, and collects the errors.

    Args:
        namespace: the prefix of every physical name; empty means none.
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
