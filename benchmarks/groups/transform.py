"""Consume, transform, publish, confirmed: throughput under the same guarantee."""

from __future__ import annotations

from benchmarks.model import Form, Group, Subject, Target


def _subject(library: str, shape: str, partitions: int, count: int, warm: int) -> Subject:
    arguments = (
        "kafka", "{url}", "--run", "{run}", "--shape", shape, "--partitions", str(partitions),
        "--count", str(count), "--warm", str(warm),
    )  # fmt: skip
    return Subject(library, f"{library} {shape} {partitions}", library, arguments, "kafka")


def transform(form: Form) -> Group:
    """Each message is acknowledged after its output is confirmed. FastStream is slower by so
    much that fewer messages are enough for it."""
    many = (form.count(10_000, 50_000), form.count(2000, 5000))
    few = (form.count(1500, 10_000), form.count(200, 500))
    subjects: list[Subject] = []
    rows: list[Target] = []
    for partitions in (1, 8):
        own = _subject("ours", "transform", partitions, *many)
        raw = _subject("raw", "transform", partitions, *many)
        other = _subject("faststream", "transform", partitions, *few)
        subjects += [own, raw, other]
        where = f"{partitions} partition{'s' if partitions > 1 else ''}"
        what = "consume, transform, publish, confirmed: throughput against"
        rows += [
            Target(
                f"Kafka, {where}, {what} FastStream", "per_second", (own.name, other.name), 10.0,
                at_least=True, beside=(raw.name,),
            ),
            Target(
                f"Kafka, {where}, {what} aiokafka", "per_second", (own.name, raw.name), 0.8,
                at_least=True,
            ),
        ]  # fmt: skip
    own = _subject("ours", "transform", 1, *many)
    loose = _subject("faststream", "transform-first", 1, *few)
    ours, theirs = (_subject(library, "batches", 1, *many) for library in ("ours", "faststream"))
    subjects += [loose, ours, theirs]
    rows += [
        Target(
            "Kafka, the same against FastStream that commits first and may lose messages",
            "per_second", (own.name, loose.name),
        ),
        Target(
            "Kafka, the same in batches of 500, both: throughput against FastStream",
            "per_second", (ours.name, theirs.name), 1.2, at_least=True,
        ),
    ]  # fmt: skip
    return Group("transform", "Kafka: consume, transform, publish, confirmed", subjects, rows)


#: Transport -> what a row calls it, its client, and whether FastStream has it.
_OTHERS = {
    "jetstream": ("JetStream", "nats-py", True),
    "rabbitmq": ("RabbitMQ", "aio-pika", True),
    "postgresql": ("PostgreSQL", "asyncpg", False),
}


def outputs(form: Form) -> Group:
    """The same on the other brokers, against the raw clients in batches as large as they take."""
    subjects: list[Subject] = []
    rows: list[Target] = []
    for transport, (where, client, has_faststream) in _OTHERS.items():
        ours, raw = (_other(library, transport, form) for library in ("ours", "raw"))
        subjects += [ours, raw]
        what = f"{where}, consume, transform, publish, confirmed: throughput against"
        rows.append(Target(f"{what} {client}", "per_second", (ours.name, raw.name)))
        if has_faststream:
            theirs = _other("faststream", transport, form)
            subjects.append(theirs)
            rows.append(Target(f"{what} FastStream", "per_second", (ours.name, theirs.name)))
    title = "Other brokers: consume, transform, publish, confirmed"
    return Group("outputs", title, subjects, rows)


def _other(library: str, transport: str, form: Form) -> Subject:
    if library == "faststream":
        count, warm = form.count(1500, 10_000), form.count(200, 500)
    else:
        count, warm = form.count(5000, 30_000), form.count(1000, 4000)
    module, first = library, transport
    if transport == "postgresql":  # queues in databases of their own
        module, first = "queues", library
    arguments = (
        first, "{url}", "--run", "{run}", "--shape", "transform",
        "--count", str(count), "--warm", str(warm),
    )  # fmt: skip
    return Subject(library, f"{library} {transport}", module, arguments, transport)
