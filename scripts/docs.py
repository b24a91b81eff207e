"""Writes the tables in README.md and docs/ that come from the code: `make docs`.

With --check it writes nothing and fails where a table is not what the code says. A table
stands between `<!-- begin NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from protoflow import transports
from protoflow.config import Config
from protoflow.middleware import default_chain
from protoflow.transport import Capabilities, TransportSettings
from protoflow.transports.kafka.options import KafkaOptions
from protoflow.transports.memory.broker import MemoryOptions
from protoflow.transports.nats.options import CoreOptions, JetStreamOptions
from protoflow.transports.rabbitmq.options import RabbitMQOptions
from protoflow.transports.sqlite.options import SqliteOptions
from protoflow.url import TransportURL

ROOT = Path(__file__).parents[1]
TRANSPORTS = {
    "memory": "memory://",
    "SQLite": "sqlite:///queue.db",
    "Kafka": "kafka://localhost",
    "RabbitMQ": "amqp://localhost",
    "JetStream": "jetstream://localhost",
    "NATS core": "nats://localhost",
}
#: The claims that the README tells of, in its words.
CLAIMS = {
    "at_least_once": "at least once",
    "durable": "survives restarts",
    "processes": "many processes",
    "per_key": "order per key",
    "per_partition": "order per partition",
    "broker_retry": "long retries kept by the broker",
    "dead_letters": "dead letters can be listed and replayed",
    "delayed_publish": "delayed publish",
    "atomic": "atomic",
    "broadcast": "broadcast",
}
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
    default = getattr(field.default, "value", field.default)
    if isinstance(default, TransportURL):
        return default.safe
    if dataclasses.is_dataclass(default):
        return "{}"  # policies: nothing is set
    return default.value if isinstance(default, enum.Enum) else repr(default)


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


def middleware_list() -> str:
    """The default chain, outermost first."""
    return " > ".join(f"`{name}`" for name in (*default_chain().names, "handler")) + "\n"


TABLES: dict[str, Callable[[], str]] = {
    "claims": claims_table,
    "capabilities": capabilities_table,
    "config": config_table,
    "middleware": middleware_list,
    "options-memory": options_table(MemoryOptions),
    "options-sqlite": options_table(SqliteOptions),
    "options-kafka": options_table(KafkaOptions),
    "options-rabbitmq": options_table(RabbitMQOptions),
    "options-nats": options_table(CoreOptions),
    "options-jetstream": options_table(JetStreamOptions),
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
