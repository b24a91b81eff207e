"""A broker of its own, consumers in processes, a publisher, and the means to hurt them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from protoflow import Message, connect
from protoflow.connection import Connection
from protoflow.errors import TransportError
from protoflow.testing.broker_traces import (
    RULES,
    Event,
    RecordedTransport,
    TraceChecker,
    TraceWriter,
    check,
    read_trace,
)

from tests.brokers import kind, start_own
from tests.brokers.base import RunningBroker, TestBroker, free_port
from tests.faults.ledger import Verdict, judge
from tests.faults.proxy import FaultProxy

KEYS = 100
#: Seconds after the last publish within which everything must have become of something.
PATIENCE = 120.0
#: Of a hundred messages, how many fail once, and how many always.
ONCE, ALWAYS = 3, 1


class Consumer:
    """A consumer process."""

    def __init__(
        self,
        url: str,
        run: str,
        directory: Path,
        options: dict[str, object],
        note: Callable[..., None],
    ) -> None:
        self.status = directory / f"status-{uuid.uuid4().hex[:6]}.json"
        self.log = directory / "handled.log"
        pace = str(options.pop("pace", 0))
        command = [sys.executable, "-m", "tests.faults.consumer", url, run, str(self.log)]
        path = os.pathsep.join(["runtime", "."])
        environ = {**os.environ, "PYTHONPATH": path, "FAULTS_OPTIONS": json.dumps(options)}
        self._note = note
        with (directory / "consumer.log").open("ab") as output:
            self.process = subprocess.Popen(
                [*command, str(self.status), pace], stdout=output, stderr=output, env=environ
            )

    def kill(self) -> None:
        """SIGKILL: no drain, no goodbye."""
        self._note("crash", str(self.process.pid))
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM: drains; its exit code."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.kill()
            return -9

    def ready(self) -> bool:
        """What it says of itself."""
        try:
            reported = json.loads(self.status.read_text())
        except (OSError, ValueError):
            return False
        return bool(reported["live"] and reported["ready"] and self.process.poll() is None)


class Harness:
    """One run."""

    def __init__(self, name: str, url: str, directory: Path, count: int) -> None:
        self.name = name
        self.url = url
        self.consumer_url = url
        self.directory = directory
        self.count = count
        self.run = f"f{uuid.uuid4().hex[:8]}"
        self.broker: RunningBroker | None = None
        self.kind: TestBroker
        self.proxy: FaultProxy
        self.consumers: list[Consumer] = []
        self.published: dict[str, str] = {}
        self.options: dict[str, object] = {}
        #: Seconds over which the messages are published.
        self.duration = 8.0 if count < 10_000 else 20.0
        (directory / "handled.log").touch()
        self._trace = TraceWriter(str(directory / "trace-publisher.jsonl"))

    def note(self, kind: str, member: str = "") -> None:
        """Records what the outside world does: a crash, or a fault."""
        self._trace(Event(time=time.monotonic(), member=member, kind=kind))

    def check_trace(self) -> TraceChecker:
        """Holds what the processes recorded to the model of the broker."""
        return check(read_trace(self.directory.glob("trace-*.jsonl")), self.name)

    def go_through(self, proxy: FaultProxy) -> None:
        """Puts a proxy between the broker and the consumers, not the publisher."""
        self.proxy = proxy
        self.consumer_url = proxy.url

    def publisher(self) -> Connection:
        """A connection that publishes."""
        return connect(self.url, environ={}, connect_timeout=60)

    def store(self) -> Connection:
        """A connection to where the dead letters are."""
        return connect(self.url, environ={}, connect_timeout=60)

    def spawn(self, count: int = 1) -> list[Consumer]:
        """Starts consumers."""
        made = [
            Consumer(self.consumer_url, self.run, self.directory, dict(self.options), self.note)
            for _ in range(count)
        ]
        self.consumers += made
        return made

    async def until_ready(self, seconds: float = 60.0) -> bool:
        """Waits until every running consumer is ready."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            running = [c for c in self.consumers if c.process.poll() is None]
            if running and all(consumer.ready() for consumer in running):
                return True
            await asyncio.sleep(0.1)
        return False

    async def publish(self) -> None:
        """Publishes everything, a message of each key a round: the next of a key follows only
        when the one before is confirmed, so the publisher never breaks the order itself."""
        rounds = self.count // KEYS
        pause = self.duration / rounds
        async with self.publisher() as connection:
            transport = RecordedTransport(
                connection.transport, "publisher", self._trace, time.monotonic
            )
            for number in range(rounds):
                started = time.monotonic()
                await self._publish_round(transport, number)
                await asyncio.sleep(max(0.0, pause - (time.monotonic() - started)))

    async def _publish_round(self, transport: RecordedTransport, number: int) -> None:
        left = [self._message(key, number) for key in range(KEYS)]
        deadline = time.monotonic() + PATIENCE
        while left:
            try:
                errors = await transport.submit(left)
            except TransportError:
                errors = [TransportError()] * len(left)  # type: ignore[list-item]
            for message, error in zip(left, errors, strict=True):
                if error is None:
                    self.published[message.id] = json.loads(message.payload or b"")["mode"]
            left = [m for m, error in zip(left, errors, strict=True) if error is not None]
            if left:
                assert time.monotonic() < deadline, f"publishing failed for long: {errors[0]}"
                await asyncio.sleep(0.2)

    def _message(self, key: int, number: int) -> Message:
        place = (number * KEYS + key) % 100 * 7 % 100
        mode = "always" if place < ALWAYS else "once" if place < ALWAYS + ONCE else "ok"
        payload = json.dumps({"key": key, "seq": number, "mode": mode}).encode()
        name = f"{key}-{number}"
        return Message(
            id=name,
            topic=f"{self.run}.orders",
            payload=payload,
            key=str(key).encode(),
            metadata={"ce_type": "faults.Order", "ce_source": "faults"},
            deduplication_id=f"{self.run}:{name}",
            mandatory=True,
        )

    async def settle(self) -> set[str]:
        """Waits until everything is handled or dead-lettered; the ids of the dead letters."""
        deadline = time.monotonic() + PATIENCE
        dead_letters: set[str] = set()
        async with self.store() as connection:
            topic = f"{self.run}.orders..sink..dead"
            while time.monotonic() < deadline:
                # A cluster that has just got its quorum back may not answer yet.
                with contextlib.suppress(TransportError):
                    found = await connection.dead_letters.list(topic, limit=100_000)
                    dead_letters = {dead_letter.message.id for dead_letter in found}
                if self.published.keys() <= self._handled() | dead_letters:
                    break
                await asyncio.sleep(0.5)
        return dead_letters

    def _handled(self) -> set[str]:
        lines = (self.directory / "handled.log").read_text().splitlines()
        return {"-".join(line.split()[:2]) for line in lines}

    def verdict(self, fault: str, dead_letters: set[str], seconds: float, ready: bool) -> Verdict:
        """What is to be said of the run."""
        verdict = Verdict(self.name, fault, seconds=seconds, ready=ready)
        if self.name in RULES:  # what is not simulated has no model to be held to
            checker = self.check_trace()
            verdict.events = checker.events
            verdict.disagreements = [str(each) for each in checker.found]
        return judge(verdict, self.published, self.directory / "handled.log", dead_letters)

    # Hurting the broker.

    def broker_signal(self, number: signal.Signals) -> None:
        """Sends a signal to the broker."""
        assert self.broker is not None
        self.note("fault")
        self.broker.signal(number)

    async def broker_restart(self, *, kill: bool) -> None:
        """Ends the broker, with or without warning, and starts it again on the same data."""
        assert self.broker is not None
        broker, made = self.broker, self.kind
        self.note("fault")
        assert broker.process is not None
        assert broker.directory is not None
        if kill:
            broker.process.kill()
            broker.process.wait()
        else:
            await asyncio.to_thread(made.stop, broker)
        await asyncio.sleep(1.0)
        port = int(broker.url.rpartition(":")[2].partition("/")[0])
        again = await asyncio.to_thread(made.start, broker.directory, port)
        broker.process = again.process

    def close(self) -> None:
        """Ends every consumer."""
        for consumer in self.consumers:
            if consumer.process.poll() is None:
                consumer.stop()


class WebhookHarness(Harness):
    """Webhooks that several processes receive at one port, and store before they answer."""

    def __init__(self, name: str, url: str, directory: Path, count: int) -> None:
        super().__init__(name, url, directory, count)
        self.consumer_url = self._target = f"http://127.0.0.1:{free_port()}"
        self.options = {"hand_off": url, "reuse_port": True}

    def go_through(self, proxy: FaultProxy) -> None:
        """See `Harness.go_through`. Here it is between the publisher and the consumers."""
        self.proxy = proxy
        self._target = proxy.url

    def publisher(self) -> Connection:
        """See `Harness.publisher`."""
        target = {"topic": "*", "url": self._target + "/{topic}"}
        options = {"targets": [target], "allowed_networks": ["127.0.0.0/8"]}
        return connect("http://", environ={}, transport_options=options)


@contextlib.contextmanager
def harness(
    name: str, directory: Path, count: int, broker_kind: TestBroker | None = None
) -> Iterator[Harness]:
    """A harness on a broker of its own; on SQLite a file, and webhooks are stored in one."""
    if name in ("sqlite", "http"):
        made = (WebhookHarness if name == "http" else Harness)(
            name, f"sqlite:///{directory}/queue.db", directory, count
        )
        try:
            yield made
        finally:
            made.close()
        return
    with start_own(broker_kind or name) as broker:
        url = broker.url
        if name == "jetstream":
            url = url.replace("nats://", "jetstream://")
        if name == "sqs":
            url += "?fifo=key&wait_time=1"
        made = Harness(name, url, directory, count)
        made.broker = broker
        made.kind = broker_kind or kind(name)
        try:
            yield made
        finally:
            made.close()
