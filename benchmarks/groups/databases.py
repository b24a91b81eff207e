"""PostgreSQL as a broker, and as the database of an outbox and of effects exactly once."""

from __future__ import annotations

from benchmarks.model import Form, Group, Subject, Target


def _subject(module: str, library: str, name: str, count: int, warm: int) -> Subject:
    arguments = (library, "{url}", "--run", "{run}", "--count", str(count), "--warm", str(warm))
    return Subject(library, name, module, arguments, "postgresql")


def postgresql(form: Form) -> Group:
    """A backlog consumed, against job queues in PostgreSQL at their best settings."""
    ours = _subject("queues", "ours", "ours postgresql", form.count(10_000, 50_000), 2000)
    pgqueuer = _subject("queues", "pgqueuer", "pgqueuer", form.count(5000, 20_000), 1000)
    procrastinate = _subject("queues", "procrastinate", "procrastinate", form.count(300, 2000), 50)
    pair = (ours.name, pgqueuer.name)
    slow = (ours.name, procrastinate.name)
    rows = [
        Target("PostgreSQL: messages a second against pgqueuer", "per_second", pair, 2.2, True),
        Target("PostgreSQL: CPU against pgqueuer", "cpu_us", pair, 0.45),
        Target("PostgreSQL: messages a second against procrastinate", "per_second", slow, 30, True),
    ]
    subjects = [ours, pgqueuer, procrastinate]
    return Group("postgresql", "PostgreSQL: consuming", subjects, rows, timeout=300.0)


def outbox(form: Form) -> Group:
    """A backlog relayed, and the price of effects exactly once."""
    ours = _subject("outboxes", "ours", "ours outbox", form.count(10_000, 50_000), 2000)
    theirs = _subject(
        "outboxes", "faststream-outbox", "faststream-outbox", form.count(3000, 20_000), 500
    )
    once = _subject("effects", "once", "ours once", form.count(2000, 10_000), 500)
    often = _subject("effects", "often", "ours often", form.count(2000, 10_000), 500)
    relays, effects = (ours.name, theirs.name), (once.name, often.name)
    own = "a transaction of its own"
    rows = [
        Target("outbox: messages a second against its peer", "per_second", relays, 3, True),
        Target("outbox: CPU against its peer", "cpu_us", relays, 0.3),
        Target(f"exactly once: messages a second against {own}", "per_second", effects, 0.77, True),
        Target(f"exactly once: CPU against {own}", "cpu_us", effects, 1.3),
    ]
    subjects = [ours, theirs, once, often]
    return Group("outbox", "Outbox and effects exactly once", subjects, rows, timeout=300.0)
