"""What is to be reached, and of which measurements each target is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.run import Measured, Subject


@dataclass(frozen=True)
class Target:
    """One row of the table.

    Attributes:
        group: the heading it stands under.
        name: what is compared.
        subjects: what must be measured for it, ours first.
        figure: the figure, from the measurements of the subjects in order.
        limit: what the figure is held against.
        at_least: the figure must reach the limit, not stay within it.
        unit: `x` is a ratio.
    """

    group: str
    name: str
    subjects: tuple[Subject, ...]
    figure: Callable[..., float]
    limit: float
    at_least: bool = False
    unit: str = "x"

    def row(self, measured: Mapping[Subject, Measured]) -> tuple[str, ...]:
        """The row: name, ours, the other, figure, target, verdict."""
        own, *others = (measured[subject] for subject in self.subjects)
        value = self.figure(own, *others)
        reached = value >= self.limit if self.at_least else value <= self.limit
        other = f"{others[0].cpu:.1f} ({others[0].spread})" if others else ""
        sign = ">=" if self.at_least else "<="
        return (
            self.name,
            f"{own.cpu:.1f} ({own.spread})",
            other,
            f"{value:,.2f}{self.unit}" if self.unit == "x" else f"{value:,.0f} {self.unit}",
            f"{sign} {self.limit:,g}{self.unit if self.unit == 'x' else ' ' + self.unit}",
            "reached" if reached else "missed",
        )


def ratio(own: Measured, other: Measured) -> float:
    """CPU per message against the other's."""
    return own.cpu / other.cpu


def micros(own: Measured) -> float:
    """CPU microseconds per message."""
    return own.cpu


def throughput(own: Measured) -> float:
    """Messages a second, by the clock on the wall."""
    return 1e6 / own.wall


def faster(own: Measured, other: Measured) -> float:
    """Our throughput over the other's."""
    return other.wall / own.wall


def _against_faststream(transport: str, limits: Mapping[str, float]) -> list[Target]:
    return [
        Target(
            transport,
            f"{transport}, {mode}, against FastStream {'bare' if mode == 'untraced' else mode}",
            (
                Subject("ours", transport, mode),
                Subject("faststream", transport, "bare" if mode == "untraced" else mode),
            ),
            ratio,
            limit,
        )
        for mode, limit in limits.items()
    ]


def _against_raw(mode: str, limit: float) -> Target:
    return Target(
        "rabbitmq",
        f"rabbitmq, {mode}, against aio-pika",
        (Subject("ours", "rabbitmq", mode), Subject("raw", "rabbitmq")),
        ratio,
        limit,
    )


def _memory(mode: str, limit: float) -> Target:
    other = "bare" if mode == "untraced" else mode
    return Target(
        "memory",
        f"memory, publish and handle, {mode}, against its TestBroker {other}",
        (Subject("ours", "memory", mode), Subject("faststream", "testbroker", other)),
        ratio,
        limit,
    )


TARGETS = [
    *_against_faststream("kafka", {"traced": 0.27, "sampled-out": 0.21, "untraced": 0.25}),
    Target(
        "kafka",
        "kafka, consume, transform, publish, confirmed: throughput against FastStream",
        (
            Subject("ours", "kafka", "untraced", "transform"),
            Subject("faststream", "kafka", "bare", "transform"),
        ),
        faster,
        5.0,
        at_least=True,
    ),
    *_against_faststream("nats", {"traced": 0.31, "untraced": 0.30}),
    Target("nats", "nats, sampled-out", (Subject("ours", "nats", "sampled-out"),), micros, 26.0,
           unit="us"),
    *_against_faststream("jetstream", {"traced": 0.33, "untraced": 0.33}),
    *_against_faststream("rabbitmq", {"traced": 0.53}),
    _against_raw("sampled-out", 1.40),
    _against_raw("untraced", 1.22),
    _memory("traced", 0.20),
    _memory("sampled-out", 0.25),
    _memory("untraced", 0.15),
    Target("sqlite", "sqlite, synchronous=NORMAL: publish, claim, handle, ack",
           (Subject("ours", "sqlite-normal"),), throughput, 100_000, at_least=True, unit="/s"),
    Target("sqlite", "sqlite, synchronous=FULL: publish, claim, handle, ack",
           (Subject("ours", "sqlite-full"),), throughput, 50_000, at_least=True, unit="/s"),
]  # fmt: skip
