"""The settings, the contract, the topology and the lag of a service."""

from __future__ import annotations

import platform
from dataclasses import asdict, fields
from typing import Any

from protoflow import __version__
from protoflow.config.settings import Config
from protoflow.contract.policy import leaves
from protoflow.contract.spec import DeliveryPolicy, MessageSpec
from protoflow.web.host import Host
from protoflow.web.request import Request
from protoflow.web.response import Response, as_json


async def settings(host: Host, request: Request) -> Response:
    """Each setting with value, origin and meaning; secrets are not shown."""
    request.given(frozenset())
    helps = {one.name: one.metadata.get("help", "") for one in fields(Config)}
    rows = [
        {
            "name": name,
            "value": _value(host.config, name, value),
            "origin": origin,
            "help": helps[name],
            "unit": _unit(name),
        }
        for name, (value, origin) in host.config.describe().items()
    ]
    return as_json(
        {
            "settings": sorted(rows, key=lambda row: row["origin"] == "built in"),
            "capabilities": asdict(host.transport.capabilities),
            "versions": {"Protoflow": __version__, "Python": platform.python_version()},
        }
    )


def _unit(name: str) -> str:
    """Returns the unit of a setting; empty if it has none. Floating-point numbers are seconds."""
    if name.endswith("_bytes"):
        return "bytes"
    return "s" if "float" in str(Config.__annotations__[name]) else ""


def _is_secret(name: str) -> bool:
    return name.endswith("_token")


def _value(config: Config, name: str, text: str) -> str:
    """Returns a setting as text; for a secret, whether it is set; for policies, their values."""
    value = getattr(config, name)
    if _is_secret(name):
        return "set" if value else "not set"
    if name == "defaults":
        return _leaves(value)
    if name == "handlers":
        return "; ".join(f"{handler}: {_leaves(each)}" for handler, each in value.items())
    return text


def _leaves(policy: DeliveryPolicy) -> str:
    return ", ".join(f"{name}={value}" for name, value in leaves(policy).items())


async def lag(host: Host, request: Request) -> Response:
    """The number of waiting messages of each group, at most one second old."""
    request.given(frozenset())
    await host.reporter.refresh()
    return as_json({"lag": lag_of(host)})


def lag_of(host: Host) -> list[dict[str, Any]]:
    """Returns the waiting messages of each group, as of the last refresh."""
    rows = []
    for one in host.plans():
        found = host.reporter.lag.get(one.settings.name)
        note = "every process reads all messages" if one.settings.broadcast else ""
        if found is None and not note:
            scheme = host.config.transport_named(one.settings.transport).url.scheme
            note = f"{scheme} does not report lag"
        rows.append(
            {
                "topic": one.settings.topic,
                "group": one.settings.group,
                "waiting": found.messages if found else None,
                "oldest_seconds": found.seconds if found else None,
                "note": note,
            }
        )
    return rows


async def topology(host: Host, request: Request) -> Response:
    """The graph of topics, handlers and dead letters."""
    request.given(frozenset())
    nodes: dict[str, dict[str, Any]] = {}
    edges: list[dict[str, Any]] = []

    def node(kind: str, name: str, **more: Any) -> str:
        key = f"{kind}:{name}"
        nodes.setdefault(key, {"id": key, "kind": kind, "name": name, **more})
        return key

    def edge(kind: str, source: str, target: str) -> None:
        edges.append({"kind": kind, "from": source, "to": target})

    for plan in host.handlers():
        registration = plan.registration
        handler = node("handler", registration.name, group=plan.group)
        edge("consumes", node("topic", plan.topic), handler)
        if registration.publication is not None:
            edge("publishes", handler, node("topic", host.publish_topic(plan) or ""))
        if plan.dead_letter_topic:
            edge("dead_letters", handler, node("dead_letters", plan.dead_letter_topic))
    return as_json({"nodes": list(nodes.values()), "edges": edges})


async def asyncapi(host: Host, request: Request) -> Response:
    """The contract of the handlers as AsyncAPI 3.1, with the bindings of the transport."""
    from protoflow import deployment  # imported here, because few clients need it

    request.given(frozenset())
    catalog = host.contract if host.alone else deployment.catalog_of(host.registrations())
    return as_json(deployment.document(catalog, host.config))


async def contract(host: Host, request: Request) -> Response:
    """The messages and operations of the handlers."""
    request.given(frozenset())
    operations = []
    for plan in host.handlers():
        registration = plan.registration
        published = registration.publication
        operations.append(
            {
                "name": registration.name,
                "topic": plan.topic,
                "group": plan.group,
                "types": list(registration.types),
                "publishes": host.publish_topic(plan),
                "published_type": published.message.type if published else None,
                "batched": registration.batched,
                "streams": registration.streams,
                "broadcast": registration.broadcast,
                "effects": str(registration.effects),
            }
        )
    messages = [_message(spec) for spec in host.messages().values()]
    return as_json({"messages": messages, "operations": operations})


def _message(spec: MessageSpec) -> dict[str, Any]:
    descriptor = spec.message_class.DESCRIPTOR
    hidden = spec.sensitive.get(descriptor.full_name, ())
    return {
        "type": spec.type,
        "proto": descriptor.full_name,
        "topic": spec.topic,
        "aliases": list(spec.aliases),
        "partition_key": spec.partition_key,
        "encoding": str(spec.encoding) if spec.encoding else None,
        "fields": [
            {
                "name": field.name,
                "json_name": field.json_name,
                "number": field.number,
                "type": _type(field),
                "repeated": bool(field.is_repeated),
                "sensitive": field.name in hidden,
            }
            for field in descriptor.fields
        ],
    }


def _type(field: Any) -> str:
    if field.message_type is not None:
        return str(field.message_type.full_name)
    if field.enum_type is not None:
        return str(field.enum_type.full_name)
    return _SCALARS[field.type]


#: The names of scalar types, by their number in descriptor.proto.
_SCALARS = {
    1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 6: "fixed64", 7: "fixed32",
    8: "bool", 9: "string", 12: "bytes", 13: "uint32", 15: "sfixed32", 16: "sfixed64",
    17: "sint32", 18: "sint64",
}  # fmt: skip
