"""The examples of integrations do what docs/integrations.md says."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.brokers.base import free_port
from tests.examples.test_orders import ROOT, environment

SOURCE = ROOT / "examples" / "integrations"
#: The second order fails always: it is given up after three runs.
ORDERS = """
    import protoflow
    from billing import config
    from shop.v1.orders_pb2 import OrderPlaced
    from shop.v1.orders_protoflow import OrdersEventProducerSync

    events = OrdersEventProducerSync(protoflow.connect_sync(config().transport))
    events.publish_order_placed(OrderPlaced(order_id="A-1", cents=1990), id="first")
    events.publish_order_placed(OrderPlaced(order_id="A-2"), id="second")
"""


class Programs:
    """The examples in a directory with two orders in `shop.db`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._running: list[subprocess.Popen[str]] = []

    def start(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        """Starts a program, with its errors and its output in one stream."""
        running = subprocess.Popen(
            command, cwd=self.directory, env=self._environment(variables), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._running.append(running)
        return running

    def serve(self, *command: str, until: Sequence[str], **variables: str) -> list[str]:
        """Runs a service until its lines have had these texts; returns all its lines."""
        running = self.start(*command, **variables)
        assert running.stdout is not None
        guard = threading.Timer(50, running.kill)
        guard.start()
        lines, missing = [], set(until)
        for line in running.stdout:
            lines.append(line.rstrip("\n"))
            missing = {text for text in missing if text not in line}
            if not missing and guard.is_alive():
                running.send_signal(signal.SIGTERM)
                missing = {"\0"}
        guard.cancel()
        assert running.wait() == 0, "\n".join(lines)
        return lines

    def run(self, program: str, **variables: str) -> str:
        """Runs a program that imports an example; it must say nothing on stderr."""
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            cwd=self.directory, env=self._environment(variables),
            capture_output=True, text=True, timeout=50, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        return done.stdout

    def stored(self) -> int:
        """The messages in the file of the transport."""
        database = sqlite3.connect(self.directory / "shop.db")
        (count,) = database.execute("SELECT count(*) FROM protoflow_messages").fetchone()
        database.close()
        return int(count)

    def kill(self) -> None:
        """Ends what a failed test left."""
        for running in self._running:
            running.kill()
            running.communicate()

    def _environment(self, variables: dict[str, str]) -> dict[str, str]:
        path = f"{self.directory / 'gen'}:{self.directory}:{ROOT / 'runtime'}"
        return environment(PYTHONPATH=path, PYTHONUNBUFFERED="1") | variables


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples with generated code and two orders."""
    directory = tmp_path_factory.mktemp("integrations") / "examples"
    ignored = shutil.ignore_patterns("gen", "__pycache__", "*.db*")
    shutil.copytree(SOURCE, directory, ignore=ignored)
    subprocess.run(
        [Path(sys.executable).parent / "protoflow", "generate"],
        cwd=directory, env=environment(), check=True, capture_output=True,
    )  # fmt: skip
    Programs(directory).run(ORDERS)
    return directory


@pytest.fixture
def programs(generated: Path, tmp_path: Path) -> Iterator[Programs]:
    programs = Programs(shutil.copytree(generated, tmp_path / "examples"))
    yield programs
    programs.kill()


def records(lines: Sequence[str]) -> list[dict[str, Any]]:
    """The lines that are JSON."""
    return [json.loads(line) for line in lines if line.startswith("{")]


def wait_for(url: str) -> None:
    """Waits until a server answers."""
    deadline = time.monotonic() + 40
    while True:
        try:
            httpx.get(url)
            return
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


FASTAPI = """
    import time
    import logging; logging.disable()
    from starlette.testclient import TestClient
    from with_fastapi import app, service

    with TestClient(app, client=("127.0.0.1", 50000), base_url="http://127.0.0.1") as client:
        print(client.post("/orders?order_id=A-3&cents=5").status_code)
        (stats,) = service.stats().values()
        while (stats.handled, stats.dead_lettered) != (2, 1):
            time.sleep(0.01)
        print(client.get("/protoflow/readyz").json()["status"])
    print(service.health().ready)
"""


def test_fastapi_publishes_and_consumes(programs: Programs) -> None:
    out = programs.run(FASTAPI, PYTHONWARNINGS="ignore")
    assert out.split() == ["202", "ok", "False"]


def test_any_asgi_server_starts_and_drains_the_service(programs: Programs) -> None:
    port = free_port()
    running = programs.start(
        sys.executable, "-m", "uvicorn", "with_asgi:app", f"--port={port}", "--log-level=info"
    )
    wait_for(f"http://127.0.0.1:{port}/A-3")
    assert httpx.get(f"http://127.0.0.1:{port}/A-4").status_code == 202
    deadline = time.monotonic() + 30
    while programs.stored() > 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    output, _ = running.communicate(timeout=30)
    assert "Application startup complete" in output
    assert "Application shutdown complete" in output


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_flask_publishes_below_gunicorn(programs: Programs, preload: tuple[str, ...]) -> None:
    port = free_port()
    running = programs.start(
        sys.executable, "-m", "gunicorn", "with_flask:app", f"--bind=127.0.0.1:{port}",
        "--workers=2", "--threads=4", "--no-control-socket", *preload,
    )  # fmt: skip
    wait_for(f"http://127.0.0.1:{port}/")

    def place(number: int) -> str:
        answer = httpx.post(f"http://127.0.0.1:{port}/orders/B-{number}", timeout=30)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["message"])

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(place, range(24)))
    running.send_signal(signal.SIGTERM)
    output, _ = running.communicate(timeout=30)
    assert running.returncode == 0, output
    assert "Traceback" not in output
    assert len(set(ids)) == 24
    assert programs.stored() == 2 + 24


DJANGO = """
    import asyncio, sqlite3, sys
    from django.test import Client
    import with_django
    from protoflow import Config, Service

    with_django.migrate()
    client = Client(raise_request_exception=False)
    print(client.post("/orders/B-1").status_code)
    import logging; logging.disable()
    print(client.post("/orders/B-1").status_code)  # the order exists: neither row nor message

    async def relay() -> None:
        service = Service(Config(transport="sqlite:///shop.db", outbox="sqlite:///django.db"))
        async with service, asyncio.timeout(20):
            while list(database.execute("SELECT * FROM protoflow_outbox")):
                await asyncio.sleep(0.05)

    database = sqlite3.connect("django.db")
    print(*[topic for (topic,) in database.execute("SELECT topic FROM protoflow_outbox")])
    asyncio.run(relay())
"""


def test_django_publishes_in_its_transaction_while_the_broker_is_away(programs: Programs) -> None:
    out = programs.run(DJANGO, PROTOFLOW_TRANSPORT="kafka://127.0.0.1:1")
    assert out.split() == ["202", "500", "orders.placed"]
    assert programs.stored() == 3


def test_json_logs_name_the_message(programs: Programs) -> None:
    lines = programs.serve(sys.executable, "with_json_logs.py", until=["billed", "dead-lettered"])
    billed = next(one for one in records(lines) if one["message"] == "billed")
    assert (billed["message_id"], billed["order_id"], billed["cents"]) == ("first", "A-1", 1990)
    given_up = next(one for one in records(lines) if one["level"] == "ERROR")
    assert (given_up["message_id"], given_up["error"]) == ("second", "ValueError")
    assert len(records(lines)) == len(lines)


def test_structlog_names_the_message_in_its_own_records_and_the_runtimes(
    programs: Programs,
) -> None:
    lines = programs.serve(sys.executable, "with_structlog.py", until=["A-1", "A-2"])
    own = next(one for one in records(lines) if one["event"] == "billed")
    assert (own["message_id"], own["handler"]) == ("first", "shop.v1.Orders.BillOrder")
    started = next(one for one in records(lines) if one["event"] == "the service started")
    assert started["transport"] == "sqlite:///shop.db"
    assert len(records(lines)) == len(lines)


INSTRUMENTED = {
    "OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "console",
    "OTEL_LOGS_EXPORTER": "console", "OTEL_SERVICE_NAME": "billing",
}  # fmt: skip


def documents(lines: Sequence[str]) -> list[dict[str, Any]]:
    """The JSON objects that the console exporters print, over several lines."""
    decoder, text, found = json.JSONDecoder(), "\n".join(lines), []
    while (start := text.find("{")) >= 0:
        value, end = decoder.raw_decode(text, start)
        found.append(value)
        text = text[end:]
    return found


def test_opentelemetry_configures_itself(programs: Programs) -> None:
    lines = programs.serve(
        "opentelemetry-instrument", sys.executable, "with_opentelemetry.py",
        until=["process orders.placed", "dead-lettered"], **INSTRUMENTED,
    )  # fmt: skip
    found = documents(lines)
    spans = [one for one in found if one.get("name") == "process orders.placed"]
    assert len(spans) == 4
    assert spans[0]["resource"]["attributes"]["service.name"] == "billing"
    traces = {span["context"]["trace_id"] for span in spans}
    logs = [one for one in found if "body" in one]
    given_up = next(one for one in logs if "dead-lettered" in one["body"])
    retried = next(one for one in logs if "failed, again" in one["body"])
    billed = next(one for one in logs if one["body"] == "billed")
    assert {one["trace_id"] for one in (given_up, retried, billed)} <= traces
    assert billed["attributes"]["message_id"] == "first"
    assert "protoflow.messages" in "\n".join(lines)


def test_a_disabled_sdk_costs_nothing_and_leaves_no_trace(programs: Programs) -> None:
    (programs.directory / "look.py").write_text(
        textwrap.dedent("""
        import asyncio, protoflow
        from with_opentelemetry import service
        from opentelemetry import trace

        async def main():
            assert trace.get_tracer_provider().__class__.__module__ == "opentelemetry.sdk.trace"
            async with service:
                assert service._components.publisher.tracing is None
                async with protoflow.connect("memory://") as publisher:
                    assert publisher.message_publisher.tracing is None
        asyncio.run(main())
        """)
    )
    lines = programs.serve(
        "opentelemetry-instrument", sys.executable, "look.py", until=[],
        **INSTRUMENTED, OTEL_SDK_DISABLED="true",
    )  # fmt: skip
    assert lines == []


SENTRY = """
    import asyncio, json, logging
    import sentry_sdk
    from sentry_sdk.transport import Transport
    from with_sentry import service

    events = []

    class Kept(Transport):
        def capture_envelope(self, envelope):
            events.append(envelope.get_event())

    logging.disable(logging.NOTSET)
    logging.getLogger().addHandler(logging.NullHandler())
    sentry_sdk.init(dsn="http://key@127.0.0.1/1", transport=Kept)

    async def main():
        async with service:
            (stats,) = service.stats().values()
            while (stats.handled, stats.dead_lettered) != (1, 1):
                await asyncio.sleep(0.01)
        logging.getLogger("shop").error("other errors of the application still arrive")

    asyncio.run(main())
    print(json.dumps(events))
"""


def test_sentry_gets_one_event_for_a_message_that_is_given_up(programs: Programs) -> None:
    event, other = json.loads(programs.run(SENTRY))
    assert event["exception"]["values"][-1]["type"] == "ValueError"
    assert event["transaction"] == "shop.v1.Orders.BillOrder"
    assert event["tags"]["topic"] == "orders.placed"
    assert event["contexts"]["message"] == {"id": "second", "attempt": 3}
    assert other["logentry"]["message"].startswith("other errors")


def test_one_scrape_has_the_metrics_of_all_workers(programs: Programs) -> None:
    port = free_port()
    (programs.directory / "metrics").mkdir()
    running = programs.start(
        "protoflow", "run", "with_prometheus:service", "--workers=2", f"--http={port}",
        PROMETHEUS_MULTIPROC_DIR="metrics",
    )  # fmt: skip
    wait_for(f"http://127.0.0.1:{port}/healthz")
    programs.run(ORDERS)
    values: dict[str, float] = {}
    handled = 'protoflow_messages_total{group="billing",handler="shop.v1.Orders.BillOrder",'
    handled += 'outcome="handled",topic="orders.placed"}'
    deadline = time.monotonic() + 40
    while values.get(handled) != 4 or values.get("shop_billed_cents_total") != 2 * 1990:
        assert time.monotonic() < deadline, values
        time.sleep(0.1)
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics")
        text = answer.text if answer.status_code == 200 else ""
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        values = {name: float(value) for name, _, value in lines}
        assert len(values) == len(lines), "no series is there twice"
    assert len({path.name for path in programs.directory.glob("metrics/counter_*.db")}) == 2
    running.send_signal(signal.SIGTERM)
    output, _ = running.communicate(timeout=30)
    assert running.returncode == 0, output


def test_uvloop_runs_and_drains_the_service(programs: Programs) -> None:
    lines = programs.serve(sys.executable, "with_uvloop.py", until=["billed", "dead-lettered"])
    assert any("a signal began the drain" in line for line in lines)


def test_each_example_is_short_and_typed(generated: Path) -> None:
    names = sorted(path.name for path in SOURCE.glob("with_*.py"))
    page = (ROOT / "docs" / "integrations.md").read_text()
    for name in names:
        assert len((SOURCE / name).read_text().splitlines()) <= 65, name
        assert f"examples/integrations/{name}" in page, name
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports", *names],
        cwd=generated, capture_output=True, text=True, check=False,
        env=environment(MYPYPATH=f"gen:{ROOT / 'runtime'}"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


SIGNALS = """
    import asyncio, logging, uvloop
    from protoflow import Config, Service

    async def stuck(value, context):
        print("runs", flush=True)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            print("cancelled", flush=True)
            raise


    async def main():
        service = Service(Config(environ={}, transport="memory://"))
        service.register_json_handler("stuck", "work", stuck)
        running = asyncio.create_task(service.run())
        while not service.subscriptions or not service.health().ready:
            await asyncio.sleep(0.01)
        await service.publish_data("work", "/test", {})
        await running

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    uvloop.run(main())
    print("ended")
"""


def test_signals_drain_and_then_cancel_below_uvloop(programs: Programs) -> None:
    running = programs.start(sys.executable, "-c", textwrap.dedent(SIGNALS))
    assert running.stdout is not None
    seen = []
    for line in running.stdout:
        seen.append(line.strip())
        if line.startswith(("runs", "a signal began the drain")):
            os.kill(running.pid, signal.SIGTERM if line == "runs\n" else signal.SIGINT)
    assert running.wait(30) == 0, seen
    assert seen[-3:] == [
        "a signal cancelled the handlers; the next one exits", "cancelled", "ended",
    ]  # fmt: skip
