"""The sources of settings besides arguments: a file and the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from typing import Any

from protoflow.config.options import did_you_mean

_PREFIX = "PROTOFLOW_"
#: Settings of earlier versions and their present places.
_MOVED = {"exchange": "transport_options: exchange on RabbitMQ, prefix on JetStream"}
#: Variables with the prefix that are not settings.
_RESERVED = frozenset({"PROTOFLOW_CONFIG", "PROTOFLOW_REQUIRE_BROKERS"})
#: Variables that Kubernetes sets for every service whose name begins with `protoflow`.
_SERVICE_LINK = re.compile(
    r"PROTOFLOW_(.*_)?(SERVICE_(HOST|PORT(_.*)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
#: Tables whose keys are names of the contract.
_BY_NAME = frozenset({"HANDLERS", "TOPICS", "GROUPS"})
_SERVICE_PORT = re.compile(r"(tcp|udp|sctp)://\S+:\d+")


def from_file(
    path: str | os.PathLike[str] | None, names: Collection[str], mistakes: list[str]
) -> dict[str, Any]:
    """Returns the settings of a TOML file; empty without a file."""
    if not path:
        return {}
    import tomllib  # imported here, because many services have no file

    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        mistakes.append(f"file: {path}: {error.strerror}")
        return {}
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, or bytes that are not text
        mistakes.append(f"file: {path}: not TOML: {error}")
        return {}
    return known_only(content, f"file {path}", names, mistakes)


def from_environment(
    environ: Mapping[str, str], names: Collection[str], mistakes: list[str]
) -> dict[str, Any]:
    """Returns the settings of the environment; `__` in a name starts a nested name."""
    content: dict[str, Any] = {}
    for name, text in sorted(environ.items()):
        if not name.startswith(_PREFIX) or name in _RESERVED or _is_service_link(name, text):
            continue
        first, *rest = _parts_of(name[len(_PREFIX) :])
        value: Any = text
        if not rest and text.lstrip().startswith("{"):
            import json  # imported here, because many services have no tables in their environment

            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                mistakes.append(f"{name}: not a JSON object")
                continue
        target = content
        for part in [first, *rest][:-1]:
            nested = target.setdefault(part, {})
            if not isinstance(nested, dict):
                mistakes.append(f"{name}: {part} is already set as a whole")
                break
            target = nested
        else:
            target[rest[-1] if rest else first] = value
    return known_only(content, "environment", names, mistakes)


def _is_service_link(name: str, text: str) -> bool:
    """Whether Kubernetes set a variable, for a service with the name of a setting:
    `PROTOFLOW_PORT=tcp://10.0.0.1:80`."""
    return _SERVICE_LINK.fullmatch(name) is not None or (
        name.endswith("PORT") and _SERVICE_PORT.fullmatch(text) is not None
    )


def _parts_of(name: str) -> list[str]:
    """Returns the parts of a nested setting. Names of handlers, topics and groups keep their case,
    if the environment allows such names: `HANDLERS__shop.v1.Orders.BillOrder__CONCURRENCY`."""
    parts = name.split("__")
    return [
        part if place == 1 and parts[0].upper() in _BY_NAME and "." in part else part.lower()
        for place, part in enumerate(parts)
    ]


def known_only(
    content: dict[str, Any], where: str, names: Collection[str], mistakes: list[str]
) -> dict[str, Any]:
    """Returns the values of known settings; adds each unknown name to the mistakes."""
    for name in [name for name in content if name not in names]:
        shown = _PREFIX + name.upper() if where == "environment" else name
        if moved := _MOVED.get(name.lower()):
            mistakes.append(f"{shown} ({where}): was moved to {moved}")
        else:
            hint = did_you_mean(name.lower(), names) or f"; known are {', '.join(sorted(names))}"
            mistakes.append(f"{shown} ({where}): no such setting{hint}")
        del content[name]
    return content
