"""Servers of a test's own: one, a cluster of three nodes, and one that a sentinel names."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.brokers import skip_or_fail, start_own
from tests.brokers.base import BrokerUnavailable, RunningBroker, free_port
from tests.brokers.redis import RedisBroker


@contextmanager
def server(*arguments: str) -> Iterator[RunningBroker]:
    try:
        with start_own(RedisBroker(arguments=arguments)) as broker:
            yield broker
    except BrokerUnavailable as error:
        skip_or_fail("redis", error)


@contextmanager
def cluster() -> Iterator[str]:
    """The URL of three nodes, each with a third of the slots."""
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(
                # The port of the other nodes is by default beyond what a free port leaves room for.
                server("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
            ).url.removeprefix("redis://")
            for _ in range(3)
        ]
        subprocess.run(
            ["redis-cli", "--cluster", "create", *nodes, "--cluster-yes"],
            check=True,
            capture_output=True,
            timeout=60,
        )
        yield f"redis://{','.join(nodes)}?cluster=true&shards=3"


@contextmanager
def sentinel() -> Iterator[str]:
    """The URL of a sentinel that watches one server."""
    with server() as master, start_own(_Sentinel(master.details["port"])) as watching:
        yield f"{watching.url}/0?sentinel=main"


class _Sentinel(RedisBroker):
    """A sentinel that watches one server."""

    def __init__(self, port: str) -> None:
        super().__init__()
        self._master = port

    def arguments(self, directory: Path, port: int) -> list[str]:
        config = directory / "sentinel.conf"
        config.write_text(f"sentinel monitor main 127.0.0.1 {self._master} 1\n")
        return [str(config), "--sentinel", "--bind", "127.0.0.1", "--port", str(port)]
