"""The command line that the subjects on brokers share."""

from __future__ import annotations

import argparse
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How one subject is run.

    Attributes:
        transport: kafka, nats, jetstream, rabbitmq, memory or sqlite.
        url: where the broker is.
        run: unique to this run, the prefix of every name.
        count: messages that are measured.
        warm: messages before them.
        mode: traced, sampled-out or untraced.
        shape: consume, transform, batches or latency; consume, held or per-key for queues.
        partitions: of Kafka's topics.
        rate: messages a second that the publisher of latencies keeps to.
        backlog: messages that wait and are not measured.
        gc: new objects before Python looks for garbage; 0 is Python's own, None is what the
            library does.
    """

    transport: str
    url: str
    run: str
    count: int
    warm: int
    mode: str
    shape: str
    partitions: int
    rate: int
    backlog: int
    gc: int | None

    @property
    def total(self) -> int:
        """All messages."""
        return self.warm + self.count

    @property
    def address(self) -> str:
        """The URL without its scheme."""
        return self.url.partition("://")[2]

    @property
    def server(self) -> str:
        """The URL that a NATS client takes."""
        return self.url.replace("jetstream://", "nats://")


def options() -> Options:
    """What the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("transport")
    parser.add_argument("url")
    parser.add_argument("--run", default="bench")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--warm", type=int, default=1000)
    parser.add_argument("--mode", default="untraced")
    parser.add_argument("--shape", default="consume")
    parser.add_argument("--partitions", type=int, default=1)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--backlog", type=int, default=0)
    parser.add_argument("--gc", type=int)
    return Options(**vars(parser.parse_args()))
