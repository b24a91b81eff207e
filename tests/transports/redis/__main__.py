"""The transport's acceptance suite on other servers: `python -m tests.transports.redis [KIND...]`.

The kinds are `cluster` (three nodes), `sentinel`, and `single`. `PROTOFLOW_REDIS_SERVER` names
the program that is started instead of the `redis-server` on PATH: another version, or Valkey.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.brokers import kind
from tests.transports.redis.servers import cluster, sentinel, server


@contextmanager
def single() -> Iterator[str]:
    with server() as broker:
        yield broker.url


KINDS: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "cluster": cluster,
    "sentinel": sentinel,
    "single": single,
}
SUITE = ["tests/acceptance/test_transports.py", "--transport", "redis", "-q", "--timeout", "120"]


def main(kinds: list[str]) -> int:
    """Runs the suite on each kind of server; 1 if it failed anywhere."""
    results = {}
    for name in kinds or [*KINDS]:
        with KINDS[name]() as url:
            version = kind("redis").probe(url)
            print(f"{name}: version {version}, {url}", flush=True)
            command = [sys.executable, "-m", "pytest", *SUITE]
            found = subprocess.run(command, env={**os.environ, "REDIS_URL": url}, check=False)
            results[f"{name}, version {version}"] = found.returncode
    for name, code in results.items():
        print(f"{name}: {'failed' if code else 'passed'}")
    return int(any(results.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
