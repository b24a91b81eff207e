"""Three nats-servers that keep streams together (R3), on loopback, from the same package."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import nats
from nats.errors import Error

from tests.brokers.base import BrokerUnavailable, free_port, send_signal, start_process
from tests.brokers.nats import NatsBroker, _find

_CONFIG = """server_name: {name}
listen: 127.0.0.1:{port}
jetstream {{ store_dir: "{store}", max_mem: 256MB, max_file: 2GB }}
cluster {{ name: protoflow, listen: 127.0.0.1:{route}, routes: [{routes}] }}
ping_interval: "2s"
lame_duck_grace_period: "200ms"
"""


class NatsCluster:
    """Nodes 0 to 2. Ends what it started, by its own processes."""

    def __init__(self, directory: Path, size: int = 3) -> None:
        self.ports = [free_port() for _ in range(size)]
        self._directory = directory
        self._binary = _find()[0]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        routes = [free_port() for _ in range(size)]
        joined = ", ".join(f"nats://127.0.0.1:{route}" for route in routes)
        for node in range(size):
            text = _CONFIG.format(
                name=f"n{node}",
                port=self.ports[node],
                store=directory / f"store{node}",
                route=routes[node],
                routes=joined,
            )
            (directory / f"n{node}.conf").write_text(text)

    @property
    def url(self) -> str:
        """All nodes, as Protoflow takes it, for streams with three replicas."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"jetstream://{hosts}?replicas={len(self.ports)}"

    def url_of(self, node: int) -> str:
        """One node alone."""
        return f"jetstream://127.0.0.1:{self.ports[node]}?replicas={len(self.ports)}"

    def start(self, *nodes: int) -> None:
        """Starts nodes, all by default, and waits until they answer."""
        chosen = nodes or tuple(range(len(self.ports)))
        for node in chosen:
            self._processes[node] = start_process(
                [str(self._binary), "-c", str(self._directory / f"n{node}.conf")],
                self._directory / f"n{node}.log",
            )
        for node in chosen:
            NatsBroker().wait_for_answer(
                f"nats://127.0.0.1:{self.ports[node]}", self._processes[node], 15
            )

    def signal(self, number: signal.Signals, *nodes: int) -> None:
        """Sends a signal to nodes."""
        for node in nodes:
            send_signal(self._processes[node].pid, number)

    def kill(self, *nodes: int) -> None:
        """SIGKILL, and waits for the end."""
        self.signal(signal.SIGKILL, *nodes)
        for node in nodes:
            self._processes.pop(node).wait()

    def stop(self) -> None:
        """Ends all nodes."""
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._processes.clear()

    async def ready(self, seconds: float = 30.0) -> None:
        """Waits until the cluster has a leader and makes streams of three replicas."""
        deadline = time.monotonic() + seconds
        config = {"name": "warm-up", "subjects": ["warm-up"], "num_replicas": len(self.ports)}
        while True:
            answer = await self.ask("STREAM.CREATE.warm-up", config)
            if answer is not None and "error" not in answer:
                await self.ask("STREAM.DELETE.warm-up")
                return
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"the cluster makes no stream: {answer}")
            await asyncio.sleep(0.2)

    async def ask(self, subject: str, request: dict[str, Any] | None = None) -> Any:
        """A request to JetStream over any node that runs; None: nobody answered."""
        running = [f"nats://127.0.0.1:{self.ports[node]}" for node in self._processes]
        try:
            client = await nats.connect(running, connect_timeout=1, max_reconnect_attempts=1)
        except (Error, OSError, TimeoutError):
            return None
        try:
            payload = b"" if request is None else json.dumps(request).encode()
            reply = await client.request(f"$JS.API.{subject}", payload, timeout=2)
            return json.loads(reply.data)
        except (Error, OSError, TimeoutError):
            return None
        finally:
            await client.close()

    async def leader(self, stream: str) -> int | None:
        """The node that leads a stream."""
        info = await self.ask(f"STREAM.INFO.{stream}") or {}
        name = info.get("cluster", {}).get("leader")
        return int(name[1:]) if name else None

    async def move_leaders(self, stream: str, *consumers: str) -> None:
        """The leaders of a stream and of its consumers step down."""
        await self.ask(f"STREAM.LEADER.STEPDOWN.{stream}", {})
        for consumer in consumers:
            await self.ask(f"CONSUMER.LEADER.STEPDOWN.{stream}.{consumer}", {})
