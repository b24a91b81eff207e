"""moto's server: an emulator of SNS and SQS (and of AWS's other services), from its wheel."""

from __future__ import annotations

import json
import sys
import urllib.request
from importlib import metadata
from pathlib import Path

from protoflow.config.url import TransportURL

from tests.brokers.base import BrokerUnavailable, RunningBroker, TestBroker, free_port


class SqsBroker(TestBroker):
    """A server on loopback, in a process of its own; it keeps everything in memory."""

    name = "sqs"
    variable = "SQS_URL"
    port = 5000

    def probe(self, url: str) -> str:
        parsed = TransportURL.parse(url)
        host, port = parsed.hosts[0]
        address = f"http://{host}:{port or self.port}/moto-api/config"
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                json.load(answer)
            return metadata.version("moto")
        except (OSError, ValueError, metadata.PackageNotFoundError) as error:
            raise BrokerUnavailable(f"no server of moto at {parsed.safe}: {error}") from error

    def start(self, directory: Path, port: int | None = None) -> RunningBroker:
        port = port or free_port()
        server = Path(__file__).with_name("moto_server.py")
        return self.run_server(
            [sys.executable, str(server), "-H", "127.0.0.1", "-p", str(port)],
            f"sqs://test:test@127.0.0.1:{port}",
            directory,
            source="wheel",
            details={"port": str(port)},
            seconds=30,
            hint="; run: pip install 'moto[server]'",
        )
