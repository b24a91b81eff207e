"""Transports without a broker: publish and handle in one process."""

from __future__ import annotations

from benchmarks.groups.brokers import ALL, WORDS
from benchmarks.model import Form, Group, Subject, Target


def _subject(library: str, transport: str, url: str, mode: str, count: int) -> Subject:
    arguments = (transport, url, "--count", str(count), "--warm", "2000", "--mode", mode)
    return Subject(library, f"{library} {transport} {mode}", "embedded", arguments)


def memory(form: Form) -> Group:
    """Against FastStream's TestBroker, which has no broker either."""
    subjects: list[Subject] = []
    rows: list[Target] = []
    for mode, limit in zip(ALL, (0.20, 0.25, 0.15), strict=True):
        own = _subject("ours", "memory", "memory://", mode, form.count(20_000, 100_000))
        other = _subject("faststream", "testbroker", "none", mode, form.count(4000, 20_000))
        subjects += [own, other]
        rows.append(
            Target(
                f"memory, publish and handle, {WORDS[mode][0]}: CPU against its TestBroker",
                "cpu_us",
                (own.name, other.name),
                limit,
            )
        )
    return Group("memory", "Memory: publish and handle", subjects, rows)


def sqlite(form: Form) -> Group:
    """Publish, claim, handle and acknowledge in one process; beside, SQLite alone."""
    count = form.count(50_000, 300_000)
    subjects: list[Subject] = []
    rows: list[Target] = []
    for level, limit in (("normal", 100_000), ("full", 50_000)):
        own = Subject(
            "ours", f"ours sqlite {level}", "embedded",
            ("sqlite", f"?synchronous={level}", "--count", str(count), "--warm", "2000"),
        )  # fmt: skip
        raw = Subject("raw", f"raw sqlite {level}", "sqlite_rows", (level, str(count)))
        subjects += [own, raw]
        name = f"SQLite, synchronous={level.upper()}: publish, claim, handle, ack"
        rows.append(
            Target(name, "per_second", (own.name,), limit, at_least=True, beside=(raw.name,))
        )
    return Group("sqlite", "SQLite: publish, claim, handle, ack", subjects, rows)
