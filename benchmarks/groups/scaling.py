"""Whether it stays flat and scales: memory, concurrency, processes, handlers, keys."""

from __future__ import annotations

import os
from collections.abc import Callable

from benchmarks.model import Form, Group, Results, Subject, Target

#: KiB that resident memory may grow from the first fifth of a run to the last: what the
#: allocator's pages move by anyway.
FLAT_KIB = 1024.0
CORES = os.cpu_count() or 1


def flat(form: Form) -> Group:
    """Memory of a consumer while messages go through."""
    count = form.count(100_000, 1_000_000)
    subjects = [
        Subject(
            "ours", f"ours {transport}", "flat",
            (transport, "{url}", "--run", "{run}", "--count", str(count)),
            broker,
        )
        for transport, broker in (("sqlite", ""), ("kafka", "kafka"))
    ]  # fmt: skip
    rows = [
        Target(
            f"{title}, {count:,} messages: growth of memory",
            "growth_kib",
            (subject.name,),
            FLAT_KIB,
            remark=_resident(subject.name),
        )
        for title, subject in zip(("SQLite", "Kafka"), subjects, strict=True)
    ]
    return Group("flat", "Memory of a long run", subjects, rows, runs=1, timeout=600)


def _resident(name: str) -> Callable[[Results], str]:
    return lambda results: f"of {results[name]['resident_mib']:.0f} MiB"


def concurrency(form: Form) -> Group:
    """Handlers that sleep 50 ms, against so many of them never waiting for the runtime."""
    cases = [("memory", number) for number in (1, 10, 100, 1000)]
    cases += [("kafka", number) for number in (100, 1000)]
    bare = Subject("raw", "asyncio alone 1000", "concurrency", ("asyncio", "-", "--rate", "1000"))
    subjects, rows = [bare], []
    for transport, number in cases:
        url, broker = ("memory://", "") if transport == "memory" else ("{url}", transport)
        name = f"ours {transport} {number}"
        arguments = (transport, url, "--run", "{run}", "--rate", str(number))
        subjects.append(Subject("ours", name, "concurrency", arguments, broker))
        title = "Kafka" if transport == "kafka" else transport
        handlers = "1 handler" if number == 1 else f"{number:,} handlers at once"
        row = f"{title}, {handlers} sleeping 50 ms: share of the ideal"
        beside = (bare.name,) if number == 1000 else ()
        rows.append(
            Target(
                row, "share", (name,), 95.0, at_least=True, beside=beside,
                remark=_throughput(name),
            )
        )  # fmt: skip
    return Group("concurrency", "Concurrency", subjects, rows, runs=form.count(1, 3))


def _throughput(name: str) -> Callable[[Results], str]:
    def remark(results: Results) -> str:
        rate, cpu = results[name]["per_second"], results[name]["cpu_us"]
        return f"{rate:,.0f}/s, {rate * cpu / 1e6:.2f} cores"

    return remark


def processes(form: Form) -> Group:
    """Processes in one group, up to the number of cores, and twice that in the full form."""
    numbers = sorted({1, *(n for n in (2, 4, 8) if n <= CORES), CORES, form.count(1, 2 * CORES)})
    count = form.count(10_000, 30_000)
    subjects: list[Subject] = []
    rows: list[Target] = []
    for transport, title in (
        ("kafka", "Kafka, 8 partitions"), ("jetstream", "JetStream"), ("sqlite", "SQLite"),
    ):  # fmt: skip
        for number in numbers:
            name = f"ours {transport} {number}"
            arguments = (
                transport, "{url}", "--run", "{run}", "--rate", str(number),
                "--count", str(count), "--partitions", "8",
            )  # fmt: skip
            broker = "" if transport == "sqlite" else transport
            subjects.append(Subject("ours", name, "processes", arguments, broker))
            if number > 1:
                wanted = 0.8 * number if number <= CORES else None
                rows.append(
                    Target(
                        f"{title}, {number} processes over 1 on {CORES} cores: throughput",
                        "per_second", (name, f"ours {transport} 1"), wanted,
                        at_least=True, remark=_cores(name),
                    )
                )  # fmt: skip
    return Group("processes", "Processes in one group", subjects, rows, runs=form.count(1, 3))


def _cores(name: str) -> Callable[[Results], str]:
    def remark(results: Results) -> str:
        own, other = results[name]["own_cores"], results[name]["other_cores"]
        return f"{own:.2f} cores, broker and others {other:.2f}"

    return remark


def starting(form: Form) -> Group:
    """A service with a thousand handlers, and the command on a broker."""
    subjects = [
        Subject("ours", f"ours {transport}", "starting", (transport, "-", "--count", "1000"))
        for transport in ("memory", "sqlite")
    ]
    rows = [
        Target(
            f"{title}, 1,000 handlers in one service: time to start", "wall_ms",
            (subject.name,), 2000.0,
        )
        for title, subject in zip(("memory", "SQLite"), subjects, strict=True)
    ]  # fmt: skip
    arguments = ("kafka", "{url}", "--run", "{run}")
    command = Subject("ours", "ours protoflow run", "starting", arguments, "kafka")
    name = "Kafka, `protoflow run` of ten handlers: time until it is ready"
    rows.append(Target(name, "wall_ms", (command.name,), 400.0))
    return Group(
        "starting", "Start of a service", [*subjects, command], rows, runs=form.count(1, 5)
    )


def keys(form: Form) -> Group:
    """Ten thousand keys in flight, in order, against the same without order."""
    count = str(form.count(50_000, 200_000))
    subjects = [
        Subject(
            "ours", f"ours {mode}", "keys",
            ("memory", "memory://", "--count", count, "--mode", mode),
        )
        for mode in ("per_key", "none")
    ]  # fmt: skip
    row = Target(
        "memory, 10,000 keys in flight, order checked: CPU against no order",
        "cpu_us", ("ours per_key", "ours none"), 1.10,
    )  # fmt: skip
    return Group("keys", "Order of many keys", subjects, [row])
