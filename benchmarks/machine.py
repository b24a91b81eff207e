"""What it was measured on: the machine and the versions, without names of hosts or paths."""

from __future__ import annotations

import os
import platform
import sqlite3
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "faststream", "pydantic", "aiokafka", "nats-py", "aio-pika", "protobuf", "protovalidate",
    "opentelemetry-sdk", "prometheus-client", "grpcio-tools", "mypy-protobuf",
)  # fmt: skip


def today() -> str:
    """The date of a measurement."""
    return time.strftime("%Y-%m-%d", time.gmtime())


def processor() -> str:
    """The model of the CPU, and how many cores there are."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    cores = os.cpu_count() or 1
    return f"{model}, {cores} core{'s' if cores > 1 else ''}"


def versions(brokers: dict[str, str]) -> str:
    """Python, the packages and the brokers."""
    told = [f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"]
    for package in PACKAGES:
        try:
            told.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join([*told, *(f"{name} {number}" for name, number in brokers.items())])
