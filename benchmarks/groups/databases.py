"""PostgreSQL as a broker, and as the database of an outbox and of effects exactly once."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.model import Form, Group, Subject, Target


def _subject(module: str, library: str, name: str, count: int, warm: int, *more: str) -> Subject:
    arguments = (library, "{url}", "--run", "{run}", "--count", str(count), "--warm", str(warm))
    return Subject(library, name, module, (*arguments, *more), "postgresql")


def postgresql(form: Form) -> Group:
    """A backlog consumed, against job queues in PostgreSQL at their best settings."""
    ours = _subject("queues", "ours", "ours postgresql", form.count(10_000, 50_000), 2000)
    pgqueuer = _subject("queues", "pgqueuer", "pgqueuer", form.count(5000, 20_000), 1000)
    procrastinate = _subject("queues", "procrastinate", "procrastinate", form.count(300, 2000), 50)
    subjects, rows = [ours, pgqueuer, procrastinate], _against(ours, pgqueuer, "")
    slow = (ours.name, procrastinate.name)
    rows.append(
        Target("PostgreSQL: messages a second against procrastinate", "per_second", slow, 30, True)
    )
    held = [
        replace(each, name=f"{each.name} held", arguments=(*each.arguments, "--shape", "held"))
        for each in (ours, pgqueuer)
    ]
    rows += _against(held[0], held[1], ", a transaction held open")
    pairs = [_per_key(form), _commits(form)]
    for measured, target in pairs:
        subjects += measured
        rows.append(target)
    title = "PostgreSQL: consuming and publishing"
    return Group("postgresql", title, subjects + held, rows, timeout=600.0)


def _against(ours: Subject, pgqueuer: Subject, when: str) -> list[Target]:
    pair, than = (ours.name, pgqueuer.name), "against pgqueuer"
    return [
        Target(f"PostgreSQL{when}: messages a second {than}", "per_second", pair, 2.2, True),
        Target(f"PostgreSQL{when}: CPU {than}", "cpu_us", pair, 0.45),
        Target(f"PostgreSQL{when}: CPU of the server {than}", "server_us", pair, 0.55),
    ]


def _per_key(form: Form) -> tuple[list[Subject], Target]:
    """10,000 keys in order, with and without a backlog behind what is measured."""
    count, backlog = form.count(10_000, 50_000), form.count(100_000, 1_000_000)
    more = ("--backlog", str(backlog))
    long = _subject("queues", "per-key", "ours per key, backlog", count, 2000, *more)
    short = _subject("queues", "per-key", "ours per key", count, 2000)
    name = f"PostgreSQL, 10,000 keys in order: messages a second with {backlog:,} waiting"
    return [short, long], Target(name, "per_second", (long.name, short.name), 0.7, True)


def _commits(form: Form) -> tuple[list[Subject], Target]:
    """One message a transaction, from 16 connections."""
    count = form.count(3000, 20_000)
    woken = _subject("commits", "woken", "ours commits, woken", count, 500)
    unwoken = _subject("commits", "unwoken", "ours commits", count, 500)
    name = "PostgreSQL, a transaction for each message: with wake-ups against without"
    return [unwoken, woken], Target(name, "per_second", (woken.name, unwoken.name), 0.95, True)


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
        Target(f"exactly once: CPU of the server against {own}", "server_us", effects),
    ]
    subjects = [ours, theirs, once, often]
    return Group("outbox", "Outbox and effects exactly once", subjects, rows, timeout=300.0)
