"""Real brokers for tests, found or started.

For each broker the first hit wins:

1. the URL in `KAFKA_URL`, `AMQP_URL`, `NATS_URL`, `POSTGRES_URL`, `REDIS_URL` or `SQS_URL`; set but
   dead is an error;
2. one that listens already: kept by `python -m tests.brokers up`, else at its standard port;
3. one started from local packages on a free port, and stopped with the test session;
4. none: the test is skipped, or fails if `PROTOFLOW_REQUIRE_BROKERS` (such as
   `kafka,rabbitmq,nats,postgresql,redis,sqs`) names it.

Brokers are shared: tests use names of their own. Tests that stop, freeze or kill a broker
take one of their own with `start_own`.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from tests.brokers import keeper
from tests.brokers.base import BrokerUnavailable, RunningBroker, TestBroker

__all__ = [
    "KINDS",
    "BrokerUnavailable",
    "find",
    "kind",
    "prepare",
    "skip_or_fail",
    "start_own",
    "status",
    "url_of",
    "url_or_skip",
]

#: Name of a broker -> its module and class, imported when it is asked for.
KINDS = {
    "rabbitmq": ("rabbitmq", "RabbitMQBroker"),
    "kafka": ("kafka", "KafkaBroker"),
    "nats": ("nats", "NatsBroker"),
    "postgresql": ("postgresql", "PostgresBroker"),
    "redis": ("redis", "RedisBroker"),
    "sqs": ("sqs", "SqsBroker"),
}
_SAME_SERVER = {"jetstream": "nats"}
_REQUIRED = "PROTOFLOW_REQUIRE_BROKERS"

_found: dict[str, RunningBroker | BrokerUnavailable] = {}


def kind(name: str) -> TestBroker:
    """The broker of that name, not started."""
    module, cls = KINDS[_SAME_SERVER.get(name, name)]
    try:
        broker: TestBroker = getattr(importlib.import_module(f"tests.brokers.{module}"), cls)()
    except ImportError as error:
        raise BrokerUnavailable(f"{name}: {error}") from error
    return broker


def url_of(name: str) -> str | None:
    """The transport URL of a running broker (jetstream, or one of KINDS), which is started if
    need be; None where it cannot be had and is not required. Raises
    BrokerUnavailable if it is required, or if its environment variable is set but dead."""
    prepare([name])
    server = _SAME_SERVER.get(name, name)
    found = _found[server]
    if isinstance(found, RunningBroker):
        return found.url if server == name else found.url.replace(f"{server}://", f"{name}://", 1)
    if os.environ.get(kind_variable(server)) or server in _required():
        raise found
    return None


def url_or_skip(name: str) -> str:
    """The URL of a running broker. Skips the test if there is none and it is not required."""
    import pytest

    found = url_of(name)
    if found is None:
        pytest.skip(f"broker: {name}")
    return found


def prepare(names: Iterable[str]) -> None:
    """Finds or starts several brokers, in parallel where they have to be started."""
    missing = []
    for server in dict.fromkeys(_SAME_SERVER.get(name, name) for name in names):
        if server in _found:
            continue
        try:
            running = find(server)
        except BrokerUnavailable as error:
            _found[server] = error
            continue
        if running is None:
            missing.append(server)
        else:
            _found[server] = running
    if missing:
        _found.update(keeper.start(missing))


def find(name: str) -> RunningBroker | None:
    """A broker that runs already, or None. Raises BrokerUnavailable where the environment
    names one that does not answer."""
    broker = kind(name)
    if url := os.environ.get(broker.variable):
        try:
            return RunningBroker(name=name, url=url, source="env", version=broker.probe(url))
        except BrokerUnavailable as error:
            raise BrokerUnavailable(f"{broker.variable} is set, but: {error}") from error
    scheme = "amqp" if name == "rabbitmq" else name
    standard = f"{scheme}://127.0.0.1:{broker.port}"
    for url in filter(None, (keeper.state().get(name), standard)):
        with contextlib.suppress(BrokerUnavailable):
            version = broker.probe(url)
            return RunningBroker(
                name=name, url=broker.place(url), source="running", version=version
            )
    return None


def status() -> list[str]:
    """One line for each broker that was asked for; a missing one says why."""
    return [
        found.line() if isinstance(found, RunningBroker) else f"{name:<10} MISSING  {found}"
        for name, found in _found.items()
    ]


def kind_variable(name: str) -> str:
    """The environment variable that may hold the URL of a broker."""
    named = {"rabbitmq": "AMQP_URL", "postgresql": "POSTGRES_URL"}
    return named.get(name) or f"{name.upper()}_URL"


@contextlib.contextmanager
def start_own(name: str | TestBroker) -> Iterator[RunningBroker]:
    """A broker of the caller's own, to be hurt; stopped and removed on leaving.

    To restart it: `kind(name).start(broker.directory, port)`, the port being in its URL.
    """
    broker = kind(name) if isinstance(name, str) else name
    with tempfile.TemporaryDirectory(
        prefix=f"protoflow-{broker.name}-", ignore_cleanup_errors=True
    ) as directory:
        Path(directory).chmod(0o755)  # brokers may run as a user of their own
        running = broker.start(Path(directory))
        stop = contextlib.ExitStack()
        stop.callback(broker.stop, running)
        atexit.register(stop.close)  # a killed test must not leave a server behind
        try:
            yield running
        finally:
            stop.close()
            atexit.unregister(stop.close)


def skip_or_fail(name: str, error: BrokerUnavailable) -> NoReturn:
    """Skips a test if its own broker cannot be started; raises the error if it is required."""
    import pytest

    if _SAME_SERVER.get(name, name) in _required():
        raise error
    pytest.skip(f"broker: {name}: {error}")


def _required() -> set[str]:
    names = {name.strip() for name in os.environ.get(_REQUIRED, "").split(",")}
    return {_SAME_SERVER.get(name, name) for name in names if name}
