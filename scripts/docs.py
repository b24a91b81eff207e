"""Writes the tables in README.md and docs/ that come from the code: `make docs`.

With --check it writes nothing and fails where a table is not what the code says. A table
stands between `<!-- begin NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import re
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from annotation_tables import annotation_tables  # type: ignore[import-not-found]  # beside it
from api_reference import api_reference  # type: ignore[import-not-found]  # beside it
from breaking_tables import breaking_tables  # type: ignore[import-not-found]  # beside it
from cli_reference import reference  # type: ignore[import-not-found]  # beside this script
from pamqp.header import ContentHeader
from protoflow import transports, wire
from protoflow.cli import explanations
from protoflow.codecs.cloudevents import wrap
from protoflow.config import Config
from protoflow.config.url import TransportURL
from protoflow.contract.spec import Ordering
from protoflow.message import Message
from protoflow.middleware import default_chain
from protoflow.schema_registry.options import RegistryOptions
from protoflow.transport import Capabilities, SubscriptionSettings, Topology, TransportSettings
from protoflow.transports.built_in import BUILT_IN, BuiltInTransport
from protoflow.transports.kafka import headers as kafka_headers
from protoflow.transports.kafka.broker_queries import HEADROOM
from protoflow.transports.kafka.options import KafkaOptions
from protoflow.transports.kafka.topology import wanted_topics
from protoflow.transports.nats.jetstream.topology import TopologyManager
from protoflow.transports.nats.names import JetStreamNames
from protoflow.transports.nats.options import JetStreamOptions
from protoflow.transports.nats.wire import headers as nats_headers
from protoflow.transports.rabbitmq import codec as amqp
from protoflow.transports.rabbitmq.names import Names as RabbitMQNames
from protoflow.transports.rabbitmq.planner import TopologyPlanner
from protoflow.web.routes import ROUTES

ROOT = Path(__file__).parents[1]
TRANSPORTS = {item.title: item.example for item in BUILT_IN}
#: The claims that the README lists, in its words.
CLAIMS = {
    "at_least_once": "at least once",
    "durable": "survives restarts",
    "processes": "many processes",
    "per_key": "order per key",
    "per_partition": "order per partition",
    "retains": "keeps messages for later groups",
    "broker_retry": "long retries kept by the broker",
    "dead_letters": "dead letters can be listed and replayed",
    "delayed_publish": "delayed publish",
    "atomic": "atomic",
    "broadcast": "broadcast",
}
#: What the tables of names and headers are about.
EXAMPLE = SubscriptionSettings(
    name="orders.placed/billing",
    topic="orders.placed",
    group="billing",
    ordering=Ordering.PER_KEY,
    dead_letter_topics=("orders.placed..billing..dead",),
)
MESSAGE = Message(
    id="01M84B9GPZPYZ6P4MVGVZCW01D",
    topic="orders.placed",
    payload=b"\n\x03A-7",
    key=b"A-7",
    deduplication_id="01M84B9GPZPYZ6P4MVGVZCW01D:orders.placed",
    metadata={
        wire.CE_SPECVERSION: "1.0",
        wire.CE_TYPE: "shop.v1.OrderPlaced",
        wire.CE_SOURCE: "/shop",
        wire.CE_SUBJECT: "A 7",
        wire.CE_TIME: "2026-01-02T03:04:05.678Z",
        wire.CONTENT_TYPE: wire.PROTOBUF,
        wire.CORRELATION_ID: "c-1",
        wire.TRACEPARENT: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    },
)
_BLOCK = re.compile(r"(<!-- begin (\S+) -->\n)(.*?)(<!-- end -->)", re.S)


def capabilities(url: str) -> Capabilities:
    """What a transport claims before it is connected."""
    return transports.create(TransportSettings(url=TransportURL.parse(url))).capabilities


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    cells = [[*head], *([*row] for row in rows)]
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(cells[0]), *lines[1:]]) + "\n"


def claims_table() -> str:
    """The README's: one row for each transport."""
    claimed = {name: capabilities(url) for name, url in TRANSPORTS.items()}
    rows = [
        [what, *("yes" if getattr(claimed[name], claim) else "-" for name in TRANSPORTS)]
        for claim, what in CLAIMS.items()
    ]
    return table(["", *TRANSPORTS], rows)


def capabilities_table() -> str:
    """Every claim of every transport, and what it means."""
    claimed = [capabilities(url) for url in TRANSPORTS.values()]
    meanings = dict(attributes(Capabilities))
    rows = [
        [f"`{field.name}`", *(shown(getattr(claim, field.name)) for claim in claimed),
         meanings[field.name]]
        for field in dataclasses.fields(Capabilities)
    ]  # fmt: skip
    return table(["", *TRANSPORTS, "meaning"], rows)


def proved_table() -> str:
    """Where the claims were proved."""
    return table(["", *TRANSPORTS], [["proved on", *(item.proved_on or "-" for item in BUILT_IN)]])


def kafka_topology() -> str:
    """The topics of a subscription."""

    class Context:
        options = KafkaOptions()
        settings = TransportSettings(url=TransportURL.parse("kafka://localhost"))

    topics = wanted_topics(Topology(subscriptions=(EXAMPLE,)), cast("Any", Context))
    roomy = {"max.message.bytes": f"the topic's + {HEADROOM}"}
    return table(
        ["topic", "configuration"],
        (
            [f"`{topic.name}`", _pairs(topic.configs | (roomy if topic.roomy_for else {}))]
            for topic in topics
        ),
    )


def rabbitmq_topology() -> str:
    """The exchanges and queues of a subscription, with one shard."""
    ladder = TransportSettings(url=TransportURL.parse("amqp://localhost")).ladder
    plan = TopologyPlanner(RabbitMQNames("protoflow", 1), ladder, (4, 0)).plan(
        Topology(subscriptions=(EXAMPLE,))
    )
    rows = [
        [f"exchange `{item.name}`", f"{item.kind}, durable"] for item in plan.exchanges.values()
    ]
    rows += [
        [f"queue `{item.name}`", f"quorum {_pairs(item.arguments)}"]
        for item in plan.queues.values()
    ]
    return table(["what", "how"], rows)


def jetstream_topology() -> str:
    """The streams and durables of a subscription, on a server that schedules messages."""
    names = JetStreamNames("protoflow")
    topology_manager = TopologyManager(cast("Any", None), names, JetStreamOptions())
    topology_manager.schedules = topology_manager.pins = True
    streams = [
        topology_manager.topic_stream(EXAMPLE.topic),
        topology_manager.group_stream(EXAMPLE.group),
        topology_manager.topic_stream(EXAMPLE.dead_letter_topics[0], dead_letters=True),
    ]
    rows = [
        [
            f"stream `{stream['name']}`",
            ", ".join(f"`{subject}`" for subject in stream["subjects"]),
            f"retention `{stream['retention']}`",
        ]
        for stream in streams
    ]
    rows += [
        [
            f"durable `{durable['durable_name']}`",
            f"of `{stream}`",
            _pairs({key: durable[key] for key in ("max_deliver", "max_ack_pending")}),
        ]
        for stream, durable in topology_manager.durables(EXAMPLE)
    ]
    return table(["what", "subjects", "how"], rows)


def _pairs(configuration: Mapping[str, object]) -> str:
    return " ".join(f"`{name}={value}`" for name, value in configuration.items())


def _headers(rows: Iterable[tuple[str, object]]) -> str:
    return table(["name", "value"], ([f"`{name}`", f"`{value}`"] for name, value in rows))


def kafka_wire(message: Message) -> Callable[[], str]:
    """The headers of a record."""
    return lambda: _headers(
        (name, (value or b"").decode()) for name, value in kafka_headers.write(message)
    )


def amqp_wire(message: Message) -> Callable[[], str]:
    """The properties and headers of an AMQP message."""

    def make() -> str:
        flags, data = amqp.encode(message, 1767323045.0, "protoflow/")
        header = ContentHeader()
        header.unmarshal(struct.pack(">HHQH", 60, 0, 0, flags) + data)
        properties: list[tuple[str, object]] = [
            (f"property {name}", value)
            for name, value in header.properties
            if value not in (None, "") and name not in ("headers", "timestamp")
        ]
        properties.append(("property timestamp", "when it was sent, in seconds"))
        return _headers([*properties, *(header.properties.headers or {}).items()])

    return make


def nats_wire(message: Message) -> Callable[[], str]:
    """The headers of a NATS message."""
    return lambda: _headers(nats_headers.encode(message).items())


def config_table() -> str:
    """Every field of Config."""
    settings = [field for field in dataclasses.fields(Config) if "help" in field.metadata]
    rows = [
        [
            f"`{field.name}`",
            f"`{default_of(field)}`",
            field.metadata["help"],
        ]
        for field in settings
    ]
    return table(["field", "default", "meaning"], rows)


def default_of(field: dataclasses.Field[Any]) -> str:
    """The built-in value as text."""
    default: Any = getattr(field.default, "value", field.default)
    if isinstance(default, TransportURL):
        return default.safe
    if dataclasses.is_dataclass(default):
        return "{}"  # policies: nothing is set
    if field.type == "float":
        return f"{default:g} s"
    if field.type == "tuple[float, ...]":
        return f"{', '.join(f'{wait:g}' for wait in default)} s"
    if field.name.endswith("_bytes"):
        return f"{default} bytes"
    return default.value if isinstance(default, enum.Enum) else repr(default)


def options_of(transport: BuiltInTransport) -> type:
    """The options of a transport."""
    module, _, name = transport.options.partition(":")
    found: type = getattr(importlib.import_module(f"protoflow.transports.{module}"), name)
    return found


def options_table(cls: type) -> Callable[[], str]:
    """Every option of a transport."""

    def make() -> str:
        meanings = {name: text for base in reversed(cls.__mro__) for name, text in attributes(base)}
        rows = [
            [f"`{field.name}`", shown(field.default), meanings[field.name]]
            for field in dataclasses.fields(cast("Any", cls))
            if field.init
        ]
        return table(["option", "default", "meaning"], rows)

    return make


def attributes(cls: type) -> Iterator[tuple[str, str]]:
    """Names and texts of the section `Attributes:` of a docstring."""
    _, _, section = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
    name, text = "", ""
    for line in section.splitlines():
        if not line.startswith("    "):
            break
        if line.startswith("     "):
            text += f" {line.strip()}"
            continue
        if name:
            yield name, text
        name, _, text = (part.strip() for part in line.partition(":"))
    if name:
        yield name, text


def shown(value: object) -> str:
    """A value as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "-"
    if value is None:
        return "none"
    if isinstance(value, enum.Enum):
        return f"`{value.value}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value!r}`"


def http_routes() -> str:
    """Every route of the HTTP API."""
    rows = [
        [f"`{route.method} {route.path}`", route.role.label, route.summary.removesuffix(".")]
        for route in ROUTES
    ]
    return table(["request", "role", "response or effect"], rows)


#: The kinds of errors, by the digit after PF.
ERRORS = {
    "1": "Contract",
    "2": "Settings and handlers",
    "3": "Broker",
    "4": "Publishing",
    "5": "Handling",
    "6": "Dead letters",
    "7": "Command",
    "8": "HTTP API",
}


def errors() -> str:
    """Every code, with its cause and its fix."""
    lines: list[str] = []
    for code, found in explanations.load().items():
        heading = f"## {ERRORS[code[2]]}\n"
        if heading not in lines:
            lines.append(heading)
        lines.append(f"### {code}\n\n**{found.title}.** {found.cause}\n\n*Fix:* {found.fix}\n")
    return "\n".join(lines)


def middleware_list() -> str:
    """The default chain, outermost first."""
    return " > ".join(f"`{name}`" for name in (*default_chain().names, "handler")) + "\n"


TABLES: dict[str, Callable[[], str]] = {
    "claims": claims_table,
    "capabilities": capabilities_table,
    "proved": proved_table,
    "topology-kafka": kafka_topology,
    "topology-rabbitmq": rabbitmq_topology,
    "topology-jetstream": jetstream_topology,
    "wire-kafka": kafka_wire(MESSAGE),
    "wire-kafka-structured": kafka_wire(wrap(MESSAGE)),
    "wire-amqp": amqp_wire(MESSAGE),
    "wire-nats": nats_wire(MESSAGE),
    "wire-nats-structured": nats_wire(wrap(MESSAGE)),
    "config": config_table,
    "middleware": middleware_list,
    "commands": reference,
    "errors": errors,
    "http-routes": http_routes,
    "python-api": api_reference,
    **annotation_tables(table),
    **breaking_tables(table),
    **{f"options-{item.name}": options_table(options_of(item)) for item in BUILT_IN},
    "options-schema-registry": options_table(RegistryOptions),
}


def written(text: str) -> str:
    """The text with its tables as the code says."""
    return _BLOCK.sub(lambda block: block[1] + TABLES[block[2]]() + block[4], text)


def main(arguments: list[str]) -> int:
    """Writes or checks; the exit status."""
    stale = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        before = path.read_text()
        after = written(before)
        if before == after:
            continue
        stale.append(path.relative_to(ROOT))
        if "--check" not in arguments:
            path.write_text(after)
    if "--check" in arguments and stale:
        print(*(f"{path}: a table is not what the code says; run: make docs" for path in stale))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
