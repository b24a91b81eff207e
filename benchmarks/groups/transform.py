"""Consume, transform, publish, confirmed: throughput on Kafka under the same guarantee."""

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
                f"Kafka, {where}, {what} FastStream", "per_second", (own.name, other.name), 5.0,
                at_least=True, beside=(raw.name,),
            ),
            Target(f"Kafka, {where}, {what} aiokafka", "per_second", (own.name, raw.name)),
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
            "per_second", (ours.name, theirs.name),
        ),
    ]  # fmt: skip
    return Group("transform", "Kafka: consume, transform, publish, confirmed", subjects, rows)
