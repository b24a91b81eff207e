"""Latency at 1,000 messages a second, from the call that publishes to the handler."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.model import Form, Group, Results, Subject, Target

RATE = 1000
TRANSPORTS = {
    "kafka": "Kafka",
    "nats": "NATS core",
    "jetstream": "JetStream",
    "rabbitmq": "RabbitMQ",
}
LIBRARIES = ("ours", "raw", "faststream")


def latency(form: Form) -> Group:
    """No targets: what is measured depends most on the broker and on the machine's calm."""
    count, warm = form.count(3000, 10_000), form.count(1000, 2000)
    subjects = [
        Subject(
            library, f"{library} {transport}", library,
            (
                transport, "{url}", "--run", "{run}", "--shape", "latency", "--rate", str(RATE),
                "--count", str(count), "--warm", str(warm),
            ),
            transport,
        )
        for transport in TRANSPORTS
        for library in LIBRARIES
    ]  # fmt: skip
    rows = [
        Target(
            f"{title}, 1,000 messages a second: {figure[:3]}",
            figure,
            (f"ours {transport}",),
            beside=(f"raw {transport}", f"faststream {transport}"),
            remark=_others(transport, figure),
        )
        for transport, title in TRANSPORTS.items()
        for figure in ("p50_ms", "p99_ms")
    ]
    return Group(
        "latency", "Latency at 1,000 messages a second", subjects, rows, runs=form.count(1, 5)
    )


def _others(transport: str, figure: str) -> Callable[[Results], str]:
    def remark(results: Results) -> str:
        raw, other = (results[f"{name} {transport}"][figure] for name in LIBRARIES[1:])
        return f"raw {raw:.1f} ms, FastStream {other:.1f} ms"

    return remark
