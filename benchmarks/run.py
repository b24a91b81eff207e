"""Runs subjects, each in a fresh process, interleaved, and keeps the medians."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import uuid
from dataclasses import dataclass, field

from benchmarks.meter import WARM


@dataclass(frozen=True)
class Subject:
    """One thing that is measured: a library on a transport, in a mode and a shape."""

    library: str  # ours, raw, faststream
    transport: str
    mode: str = "untraced"  # traced, sampled-out, untraced; for FastStream also bare
    shape: str = "consume"

    @property
    def name(self) -> str:
        return f"{self.library} {self.transport} {self.mode} {self.shape}"


@dataclass
class Measured:
    """What several runs of a subject gave."""

    cpu_us: list[float] = field(default_factory=list)
    wall_us: list[float] = field(default_factory=list)

    @property
    def cpu(self) -> float:
        return statistics.median(self.cpu_us)

    @property
    def wall(self) -> float:
        return statistics.median(self.wall_us)

    @property
    def spread(self) -> str:
        return f"{min(self.cpu_us):.1f}-{max(self.cpu_us):.1f}"


MODULES = {
    "ours": "benchmarks.ours",
    "raw": "benchmarks.raw",
    "faststream": "benchmarks.faststream_subject",
}
#: Transports that need no broker: everything happens in one process.
EMBEDDED = ("memory", "sqlite-normal", "sqlite-full", "testbroker")


def measure(
    subjects: list[Subject], urls: dict[str, str], count: int, runs: int
) -> dict[Subject, Measured]:
    """Every subject once a round, so that drift of the machine meets all alike."""
    measured = {subject: Measured() for subject in subjects}
    for round_number in range(runs):
        for subject in subjects:
            result = once(subject, urls.get(subject.transport, ""), count)
            measured[subject].cpu_us.append(result["cpu_us"])
            measured[subject].wall_us.append(result["wall_us"])
            print(
                f"  {round_number + 1}/{runs} {subject.name}: {result['cpu_us']:.1f} us CPU, "
                f"{1e6 / result['wall_us']:,.0f}/s",
                file=sys.stderr,
            )
    return measured


def once(subject: Subject, url: str, count: int) -> dict[str, float]:
    """One run in a process of its own."""
    run = f"b{uuid.uuid4().hex[:8]}"
    command = [
        sys.executable,
        "-m",
        MODULES[subject.library],
        subject.transport,
        url,
        run,
        str(count),
    ]
    if subject.transport in EMBEDDED:
        module = "benchmarks.embedded"
        command = [sys.executable, "-m", module, subject.transport, str(count), subject.mode]
    elif subject.library != "raw":
        command += [subject.mode, subject.shape]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    load = None
    try:
        if subject.transport == "nats":
            assert process.stdout.readline().strip() == "ready", f"{subject.name} did not start"
            kind = "json" if subject.library == "faststream" else "proto"
            load = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.nats_load", url, f"{run}.orders",
                 str(WARM + count + 500), kind, subject.mode]
            )  # fmt: skip
        output = process.communicate(timeout=120)[0]
    finally:
        process.kill()
        if load is not None:
            load.kill()
            load.wait()
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"{subject.name} ended with code {process.returncode} and no result")
    result: dict[str, float] = json.loads(lines[-1])
    return result
