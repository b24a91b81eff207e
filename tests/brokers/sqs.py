"""moto's server: an emulator of SNS and SQS (and of AWS's other services), from its wheel."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
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
        directory.mkdir(parents=True, exist_ok=True)
        server = Path(__file__).with_name("moto_server.py")
        command = [sys.executable, str(server), "-H", "127.0.0.1", "-p", str(port)]
        with (directory / "moto.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        url = f"sqs://test:test@127.0.0.1:{port}"
        try:
            version = self._wait(url, process)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return RunningBroker(
            name=self.name,
            url=url,
            source="wheel",
            version=version,
            process=process,
            directory=directory,
            details={"port": str(port)},
        )

    def _wait(self, url: str, process: subprocess.Popen[bytes]) -> str:
        deadline = time.monotonic() + 30
        while True:
            if process.poll() is not None:
                raise BrokerUnavailable(
                    f"moto's server ended with code {process.returncode}; run: pip install "
                    "'moto[server]'"
                )
            try:
                return self.probe(url)
            except BrokerUnavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
