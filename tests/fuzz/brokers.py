"""Random messages by raw clients to a real broker: what its client library makes of them, too."""

from __future__ import annotations

import dataclasses
import struct
import tempfile
from pathlib import Path
from typing import Any

from tests.acceptance.harness import Harness
from tests.acceptance.targets import TARGETS
from tests.fuzz.generate import TOPICS, Generator
from tests.fuzz.intake import Report
from tests.hostile.judge import Judge
from tests.hostile.table import Hostile
from tests.hostile.writers import Writer

ROWS = 120


def random_rows(generator: Generator, writer: Writer) -> list[Hostile]:
    """Rows with random content; every second has something of the broker's own in it."""
    own = writer.rows()
    rows = []
    for number in range(ROWS):
        topic = TOPICS[generator.below(len(TOPICS))]
        message = generator.message(topic, number)
        native = None
        if own and generator.chance(0.5):
            native = _changed(own[generator.below(len(own))].native, generator)
        rows.append(
            Hostile(
                field="random",
                kind=str(number),
                topic=topic,
                metadata=message.metadata,
                payload=message.payload,
                native=native,
            )
        )
    return rows


def _changed(native: Any, generator: Generator) -> Any:
    """A native row with random bytes in it."""
    if isinstance(native, bytes):
        changed = bytearray(native)
        for _ in range(generator.below(4)):
            if changed:
                changed[generator.below(len(changed))] = generator.below(256)
        return bytes(changed)
    known = {item.name for item in dataclasses.fields(native)} if native_is_record(native) else ()
    if "time" in known:  # Kafka
        names = ((generator.raw(9), generator.raw(9)) for _ in range(1 + generator.below(3)))
        return dataclasses.replace(native, headers=(*native.headers, *names))
    if "properties" in known:  # AMQP
        text = generator.raw(40)
        stamp = struct.pack(">Q", generator.below(1 << (1 + generator.below(64))))
        extra = [
            {"message_id": bytes((len(text),)) + text}, {"timestamp": stamp},
            {"app_id": bytes((len(text),)) + text},
        ]  # fmt: skip
        chosen = extra[generator.below(3)]
        return dataclasses.replace(native, properties={**native.properties, **chosen})
    return native


def native_is_record(native: Any) -> bool:
    return dataclasses.is_dataclass(native) and not isinstance(native, type)


async def run(name: str, seed: int, batch: int, report: Report) -> None:
    """One trial of random rows against a broker that can be had."""
    from tests.hostile.conftest import writer_for

    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as directory:
        url = target.fresh_url(Path(directory))
        if url is None:
            report.add("wrong", f"{name} cannot be had", f"seed {seed}")
            return
        harness = Harness(target, url, Path(directory))
        await harness.open()
        try:
            writer = writer_for(harness)
            rows = random_rows(Generator(seed, batch, harness.physical("keyed")), writer)
            report.messages += len(rows)
            await Judge(harness, writer, rows).trial(within=20)
        except AssertionError as error:
            for line in str(error).splitlines()[:6]:
                report.add("wrong", f"{name}: {line:.200}", f"seed {seed}, batch {batch}")
        except Exception as error:
            where = f"seed {seed}, batch {batch}"
            report.add("foreign", f"{name}: {type(error).__name__}: {error!s:.150}", where)
        finally:
            await harness.close()
