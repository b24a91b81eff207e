"""Further transports of a service, the schema registry, and the topics, groups and handlers that
use them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from protoflow.config.options import did_you_mean
from protoflow.config.url import TransportURL
from protoflow.contract.spec import DeliveryPolicy
from protoflow.dataclass_record import dataclass_record
from protoflow.errors import ConfigError

if TYPE_CHECKING:
    from protoflow.contract.topic_source import TopicSource

#: The name of the transport that `transport` configures.
DEFAULT: Final = "default"
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]*")


@dataclass_record
class NamedTransport:
    """A transport of the settings, or the schema registry.

    Attributes:
        url: the URL of the broker or of the registry.
        options: the options of the transport or of the registry.
    """

    url: TransportURL
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        return self.url.safe


@dataclass_record
class RouteSettings:
    """The settings of a topic or a group.

    Attributes:
        transport: the name of its transport; empty: not set here.
        source: the existing queue, stream or topic that a topic is consumed from; None: its own.
        schema_registry: for topics: options that differ from those of the schema registry.
    """

    transport: str = ""
    source: TopicSource | None = None
    schema_registry: Mapping[str, Any] = field(default_factory=dict, hash=False)


#: What programs give as `transports`: URLs, tables or records by name.
TransportTable: TypeAlias = Mapping[str, str | Mapping[str, Any] | NamedTransport]
#: What programs give as `topics` and `groups`.
RouteTable: TypeAlias = Mapping[str, Mapping[str, Any] | RouteSettings]
#: What programs give as `schema_registry`: its URL, a table or a record.
RegistryTable: TypeAlias = str | Mapping[str, Any] | NamedTransport


class HandlerPolicies(dict[str, DeliveryPolicy]):
    """The policies of handlers, and the transports that some of them name.

    Args:
        policies: by handler.
        transports: the names of transports, by handler.
    """

    def __init__(
        self, policies: Mapping[str, DeliveryPolicy], transports: Mapping[str, str]
    ) -> None:
        super().__init__(policies)
        self.transports = transports


def table_of(name: str, value: Any) -> dict[str, Any]:
    """Returns a transport as a table, so that sources are merged option by option. Raises
    ValueError."""
    if isinstance(value, str | TransportURL):
        return {"url": value}
    if isinstance(value, NamedTransport):
        return {"url": value.url, **value.options}
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}: must be a table with url, or a URL")
    return dict(value)


def transports_of(
    tables: Mapping[str, Mapping[str, Any]], mistakes: list[str]
) -> dict[str, NamedTransport]:
    """Returns the transports of merged tables; collects mistakes."""
    found: dict[str, NamedTransport] = {}
    for name, table in tables.items():
        where = f"transports.{name}"
        if name == DEFAULT:
            mistakes.append(f"{where}: this name stands for the setting `transport`; set that")
            continue
        if not _NAME.fullmatch(name):
            mistakes.append(f"{where}: a name has lower-case letters, digits, '_' and '-'")
        if (transport := transport_of(where, table, mistakes)) is not None:
            found[name] = transport
    return found


def registry_of(table: Mapping[str, Any], mistakes: list[str]) -> NamedTransport | None:
    """Returns the schema registry of a merged table, None if it is empty; collects mistakes."""
    if not table:
        return None
    found = transport_of("schema_registry", table, mistakes)
    if found is not None and (found.url.scheme not in ("http", "https") or not found.url.hosts):
        mistakes.append(
            f"schema_registry.url: {found.url.safe} is no address of a schema registry; it looks "
            "like https://registry.internal:8081"
        )
    return found


def transport_of(
    where: str, table: Mapping[str, Any], mistakes: list[str]
) -> NamedTransport | None:
    """Returns the transport of a table; None with a mistake."""
    url = table.get("url")
    if not url:
        mistakes.append(f"{where}.url: is missing")
        return None
    try:
        parsed = url if isinstance(url, TransportURL) else TransportURL.parse(str(url))
    except ConfigError as error:
        mistakes += [text.replace("transport:", f"{where}.url:", 1) for text in error.problems]
        return None
    options = {option: value for option, value in table.items() if option != "url"}
    return NamedTransport(url=parsed, options=options)


def route_of(table: str, name: str, value: Any, mistakes: list[str]) -> RouteSettings:
    """Returns the settings of a topic or a group; collects mistakes. Raises ValueError.

    Args:
        table: `topics` or `groups`.
        name: the topic or the group.
        value: its settings.
        mistakes: the collected mistakes.
    """
    if isinstance(value, RouteSettings):
        return value
    where = f"{table}.{name!r}"
    known = ("transport", "source", "schema_registry") if table == "topics" else ("transport",)
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: must be a table with {', '.join(known)}")
    for other in value.keys() - {*known}:
        hint = did_you_mean(other, known) or f"; known settings: {', '.join(known)}"
        mistakes.append(f"{where}.{other}: no such setting{hint}")
    source: TopicSource | None = None
    if table == "topics" and "source" in value:
        # imported here, because few services have sources
        from protoflow.config.topic_sources import source_of

        source = source_of(f"{where}.source", value["source"], mistakes)
    registry = value.get("schema_registry", {})
    if not isinstance(registry, Mapping):
        mistakes.append(f"{where}.schema_registry: must be a table")
        registry = {}
    return RouteSettings(
        transport=str(value.get("transport", "")), source=source, schema_registry=registry
    )


def mistakes_in(
    transports: Mapping[str, NamedTransport],
    tables: Mapping[str, Mapping[str, RouteSettings]],
    handlers: Mapping[str, str],
    registry: NamedTransport | None,
) -> Iterator[str]:
    """Yields mistakes in transports, sources and options of the schema registry.

    Args:
        transports: by name; `default` first, which is the setting `transport`.
        tables: the settings `topics` and `groups`.
        handlers: the transport that `handlers` names, by handler.
        registry: the schema registry; None if there is none.
    """
    yield from _mistakes_in_topics(tables["topics"], registry)
    used = {
        f"{table}.{key!r}.transport": route.transport
        for table, routes in tables.items()
        for key, route in routes.items()
        if route.transport
    }
    used |= {f"handlers.{key!r}.transport": name for key, name in handlers.items()}
    known = tuple(transports)
    for setting, name in used.items():
        if name not in known:
            hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
            yield f"{setting}: no transport {name!r}{hint}"
    same: dict[str, NamedTransport] = {}
    for name, transport in transports.items():
        if name != DEFAULT and name not in used.values():
            yield (
                f"transports.{name}: no topic, group or handler uses it; set `transport = "
                f'"{name}"` in [topics."..."], [groups."..."] or [handlers."..."], or remove it'
            )
        for other, known_transport in same.items():
            if transport == known_transport:
                yield f"transports.{name}: the same URL as {other}; use one of the two"
        same["transport" if name == DEFAULT else f"transports.{name}"] = transport


def _mistakes_in_topics(
    topics: Mapping[str, RouteSettings], registry: NamedTransport | None
) -> Iterator[str]:
    for topic, route in topics.items():
        if route.schema_registry and registry is None:
            yield (
                f"topics.{topic!r}.schema_registry: no schema registry is set; set "
                "schema_registry to its URL, or remove this"
            )
        if route.source is not None and not route.source.name:
            yield (
                f"topics.{topic!r}.source.name: is missing; set the queue, stream or topic at the "
                "broker"
            )
