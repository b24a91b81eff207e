"""CPU of consuming on each broker: ours, the raw client and FastStream in the same run."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.model import Form, Group, Subject, Target

#: Mode -> how a row calls it, and what it is called of FastStream.
WORDS = {
    "traced": ("every message traced", "FastStream with Prometheus and OpenTelemetry"),
    "sampled-out": ("span sampled out", "FastStream with the same, sampled out"),
    "untraced": ("no tracing", "FastStream bare"),
}
CLIENTS = {
    "kafka": "aiokafka",
    "nats": "nats-py",
    "jetstream": "nats-py",
    "rabbitmq": "aio-pika",
    "redis": "redis-py",
}


def subject(
    library: str, transport: str, mode: str, count: int, warm: int, partitions: int = 0
) -> Subject:
    """A consuming subject; `partitions` is for Kafka alone."""
    where = f"{transport} {partitions}" if partitions else transport
    name = f"{library} {where} raw" if library == "raw" else f"{library} {where} {mode}"
    arguments = [transport, "{url}", "--run", "{run}", "--count", str(count), "--warm", str(warm)]
    if library != "raw":
        arguments += ["--mode", mode]
    if partitions:
        arguments += ["--partitions", str(partitions)]
    return Subject(library, name, library, tuple(arguments), transport)


def _rows(
    subjects: dict[tuple[str, str], Subject], transport: str, where: str, limits: dict[str, float]
) -> list[Target]:
    """A row against FastStream for each mode, and one for information against the client."""
    raw = subjects["raw", ""].name
    rows = [
        Target(
            f"{where}, {WORDS[mode][0]}: CPU against {WORDS[mode][1]}",
            "cpu_us",
            (subjects["ours", mode].name, subjects["faststream", mode].name),
            limit,
            beside=(raw,),
        )
        for mode, limit in limits.items()
    ]
    against = Target(
        f"{where}, no tracing: CPU against {CLIENTS[transport]}",
        "cpu_us",
        (subjects["ours", "untraced"].name, raw),
    )
    return [*rows, against]


def _subjects(
    transport: str, modes: dict[str, tuple[str, ...]], count: int, warm: int, partitions: int = 0
) -> dict[tuple[str, str], Subject]:
    return {
        (library, mode): subject(library, transport, mode, count, warm, partitions)
        for library, chosen in modes.items()
        for mode in chosen
    }


ALL = ("traced", "sampled-out", "untraced")


def _collected(subjects: dict[tuple[str, str], Subject]) -> tuple[Subject, ...]:
    """Ours with Python's own garbage collector, and FastStream with ours."""
    return tuple(
        replace(subject, name=f"{subject.name} gc {gc}", arguments=(*subject.arguments, "--gc", gc))
        for subject, gc in (
            (subjects["ours", "traced"], "0"),
            (subjects["faststream", "traced"], "50000"),
        )
    )


def kafka(form: Form) -> Group:
    """Kafka with one partition and with eight."""
    subjects: list[Subject] = []
    rows: list[Target] = []
    for partitions in (1, 8):
        made = _subjects(
            "kafka", {"ours": ALL, "raw": ("",), "faststream": ALL},
            form.count(10_000, 50_000), form.count(2000, 5000), partitions,
        )  # fmt: skip
        subjects += made.values()
        where = f"Kafka, {partitions} partition{'s' if partitions > 1 else ''}"
        limits = {"traced": 0.27, "sampled-out": 0.21, "untraced": 0.25}
        rows += _rows(made, "kafka", where, limits)
        if partitions == 1:
            ours, theirs = made["ours", "traced"], made["faststream", "traced"]
            python, raised = _collected(made)
            subjects += (python, raised)
            text = f"{where}, {WORDS['traced'][0]}, garbage looked for"
            rows.append(
                Target(f"{text} as often by both, rarely", "cpu_us", (ours.name, raised.name))
            )
            rows.append(
                Target(
                    f"{text} as often by both, as Python does", "cpu_us", (python.name, theirs.name)
                )
            )
    return Group("kafka", "Kafka: consuming", subjects, rows)


def nats(form: Form) -> Group:
    """NATS core, whose publisher runs at the same time, as nothing is kept."""
    modes = {"ours": ALL, "raw": ("",), "faststream": ("traced", "untraced")}
    made = _subjects("nats", modes, form.count(10_000, 50_000), form.count(2000, 5000))
    rows = _rows(made, "nats", "NATS core", {"traced": 0.31, "untraced": 0.30})
    name = made["ours", "sampled-out"].name
    rows.insert(1, Target("NATS core, span sampled out: CPU", "cpu_us", (name,), 26.0))
    return Group("nats", "NATS core: consuming", [*made.values()], rows)


def jetstream(form: Form) -> Group:
    """JetStream."""
    modes = {"ours": ALL, "raw": ("",), "faststream": ("traced", "untraced")}
    made = _subjects("jetstream", modes, form.count(8000, 30_000), form.count(2000, 5000))
    rows = _rows(made, "jetstream", "JetStream", {"traced": 0.33, "untraced": 0.33})
    return Group("jetstream", "JetStream: consuming", [*made.values()], rows)


def rabbitmq(form: Form) -> Group:
    """RabbitMQ, where the targets without a sampled span are against the raw client."""
    modes = {"ours": ALL, "raw": ("",), "faststream": ("traced", "untraced")}
    made = _subjects("rabbitmq", modes, form.count(5000, 20_000), form.count(2000, 4000))
    raw = made["raw", ""].name
    traced, *_ = _rows(made, "rabbitmq", "RabbitMQ", {"traced": 0.53})
    others = [
        Target(
            f"RabbitMQ, {WORDS[mode][0]}: CPU against aio-pika",
            "cpu_us",
            (made["ours", mode].name, raw),
            limit,
            beside=(made["faststream", "untraced"].name,),
        )
        for mode, limit in {"sampled-out": 1.40, "untraced": 1.22}.items()
    ]
    bare = (made["ours", "untraced"].name, made["faststream", "untraced"].name)
    against = Target("RabbitMQ, no tracing: CPU against FastStream bare", "cpu_us", bare)
    return Group("rabbitmq", "RabbitMQ: consuming", [*made.values()], [traced, *others, against])


def redis(form: Form) -> Group:
    """Redis Streams; FastStream reads 100 entries at a time and acknowledges each."""
    modes = {"ours": ALL, "raw": ("",), "faststream": ("traced", "untraced")}
    made = _subjects("redis", modes, form.count(4000, 20_000), form.count(1000, 2000))
    rows = _rows(made, "redis", "Redis", {"traced": 0.20, "untraced": 0.10})
    bare = (made["ours", "untraced"].name, made["faststream", "untraced"].name)
    rows.append(Target("Redis, no tracing: messages a second", "per_second", bare, 8.0, True))
    return Group("redis", "Redis: consuming", [*made.values()], rows)
