"""`protoflow run`: one process, several, and one that follows its sources."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from tests.cli.conftest import Project
from tests.cli.test_control import free_port

_PLACED = '{"orderId": "A-1", "cents": 5}'


def _until(condition: Callable[[], bool], patience: float = 30.0) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _waiting(shop: Project) -> int | None:
    found: int | None = shop("lag", "--json").json()[0]["waiting"]
    return found


def _ended(running: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[int, str, str]:
    running.send_signal(number)
    out, err = running.communicate(timeout=30)
    assert "Traceback" not in err
    return running.returncode, out, err


def test_run_says_what_runs_where_and_drains(shop: Project) -> None:
    running = shop.start("run", "app", "--log-format", "json")
    assert running.stdout is not None
    first = running.stdout.readline()
    assert first == "1 handler on sqlite:///shop.db: shop.v1.Orders.BillOrder\n"
    assert shop("publish", "OrderPlaced", _PLACED).code == 0
    assert running.stdout.readline() == "billed A-1\n"
    code, _, err = _ended(running, signal.SIGINT)
    assert code == 0
    records = [json.loads(line) for line in err.splitlines()]
    assert {"time", "level", "logger", "message"} <= records[0].keys()
    assert _waiting(shop) == 0


def test_workers_share_the_work_and_drain_together(shop: Project) -> None:
    running = shop.start("run", "app", "--workers", "2")
    assert running.stdout is not None
    lines = [running.stdout.readline() for _ in range(2)]
    assert {line.split(" on ")[0] for line in lines} == {"1 handler"}
    assert shop("publish", "OrderPlaced", _PLACED, "--count", "20").code == 0
    _until(lambda: _waiting(shop) == 0)
    code, out, _ = _ended(running)
    assert code == 0
    assert out.count("billed A-1") == 20


def test_workers_share_one_http_api(shop: Project) -> None:
    port = free_port()
    running = shop.start("run", "app", "--workers", "2", "--http", str(port))
    assert running.stdout is not None
    assert running.stderr is not None
    assert running.stderr.readline() == f"HTTP on 127.0.0.1:{port}, for 2 workers\n"
    api = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"{api}/readyz", timeout=10) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False

    _until(ready)
    done = shop("drain", "--url", api, "--json")
    assert done.code == 0, done.err
    processes = done.json()["processes"]
    assert {process["pid"] for process in processes} == set(_children(running.pid))
    assert [one["subscriptions"][0]["state"] for one in processes] == ["drained", "drained"]
    code, _, err = _ended(running)
    assert code == 0
    assert "restarted" not in err


def test_the_port_of_workers_may_be_taken(shop: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        shop.environ["PROTOFLOW_HTTP_PORT"] = str(taken.getsockname()[1])
        done = shop("run", "app", "--workers", "2")
    assert done.code == 2
    assert "cannot be served" in done.err


def test_a_worker_that_dies_is_restarted(shop: Project) -> None:
    app = (shop.folder / "app.py").read_text()
    shop.write("app.py", app.replace(
        "        if not order.cents:",
        "        import os, pathlib\n"
        "        if order.order_id == 'die' and not pathlib.Path('died').exists():\n"
        "            pathlib.Path('died').touch()\n"
        "            os._exit(9)\n"
        "        if not order.cents:",
    ))  # fmt: skip
    shop.environ["PROTOFLOW_LEASE"] = "2"
    running = shop.start("run", "app", "--workers", "2")
    assert shop("publish", "OrderPlaced", '{"orderId": "die", "cents": 1}').code == 0
    _until(lambda: (shop.folder / "died").exists())
    _until(lambda: _waiting(shop) == 0)
    code, out, err = _ended(running)
    assert code == 0
    assert "ended with 9; restarting it" in err
    assert "billed die" in out


def test_workers_with_a_wrong_configuration_are_not_restarted(shop: Project) -> None:
    done = shop("run", "nothing", "--workers", "2")
    assert done.code == 2
    assert "module nothing is not found" in done.err


def test_reload_follows_the_sources(shop: Project) -> None:
    running = shop.start("run", "app", "--reload")
    assert running.stdout is not None
    assert running.stdout.readline().startswith("1 handler")
    shop.write("app.py", (shop.folder / "app.py").read_text().replace("billed", "charged"))
    assert running.stdout.readline().startswith("1 handler")
    assert shop("publish", "OrderPlaced", _PLACED).code == 0
    assert running.stdout.readline() == "charged A-1\n"
    code, _, err = _ended(running)
    assert code == 0
    assert "sources changed: app.py; restarting" in err


def test_dev_runs_on_a_file_with_http_and_follows_the_sources(shop: Project) -> None:
    port = free_port()
    running = shop.start("dev", "app", "--http", str(port))
    assert running.stdout is not None
    first = running.stdout.readline()
    url = "sqlite:///.protoflow/dev.db"
    assert first == f"1 handler on {url}, HTTP on 127.0.0.1:{port}: shop.v1.Orders.BillOrder\n"
    shop.write("app.py", (shop.folder / "app.py").read_text().replace("billed", "charged"))
    assert running.stdout.readline() == first
    assert shop("publish", "OrderPlaced", _PLACED, "--transport", url).code == 0
    assert running.stdout.readline() == "charged A-1\n"
    (process,) = shop("pause", "--url", f"http://127.0.0.1:{port}", "--json").json()["processes"]
    assert process["transport"] == url
    assert (shop.folder / ".protoflow" / ".gitignore").read_text() == "*\n"
    assert not (shop.folder / "shop.db").exists()
    code, _, err = _ended(running)
    assert code == 0
    assert f"export PROTOFLOW_TRANSPORT={url}" in err


def _children(parent: int) -> list[int]:
    done = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in done.stdout.split()]


def _runs(process: int) -> bool:
    # A zombie has ended; in a container nobody may wait for it.
    done = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()[:1] not in ("", "Z")


def test_workers_drain_when_their_parent_is_killed(shop: Project) -> None:
    running = shop.start("run", "app", "--workers", "2")
    assert running.stdout is not None
    for _ in range(2):
        assert running.stdout.readline().startswith("1 handler")
    workers = _children(running.pid)
    assert len(workers) == 2
    running.kill()
    _until(lambda: not any(map(_runs, workers)))
    assert "began the drain" in running.communicate(timeout=30)[1]


def test_a_signal_while_a_reload_drains_ends_the_command(shop: Project) -> None:
    text = (shop.folder / "app.py").read_text()
    slow = "import asyncio; print('slow', flush=True); await asyncio.sleep(5)"
    shop.write("app.py", text.replace("        if not", f"        {slow}\n        if not"))
    running = shop.start("run", "app", "--reload")
    assert running.stdout is not None
    assert running.stderr is not None
    assert running.stdout.readline().startswith("1 handler")
    assert shop("publish", "OrderPlaced", _PLACED).code == 0
    assert running.stdout.readline() == "slow\n"
    shop.write("app.py", text)
    while "began the drain" not in running.stderr.readline():
        pass
    code, out, _ = _ended(running)
    assert code == 0
    assert "1 handler" not in out
