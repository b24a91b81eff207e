"""`protoflow pause`, `resume` and `drain`: on a running process, with a token, and without."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from protoflow.cli import control
from protoflow.cli.app import main
from protoflow.journal import JournalReader

from tests.cli.conftest import Done, Project

NAME = "shop.v1.Orders.BillOrder"
_PLACED = '{"orderId": "A-1", "cents": 5}'


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass
class Running:
    """A service that runs, and the command that acts on it."""

    shop: Project
    process: subprocess.Popen[str]
    url: str

    def __call__(self, *arguments: str) -> Done:
        return self.shop(*arguments, "--url", self.url)


def start(shop: Project) -> Running:
    """A service that has subscribed."""
    port = free_port()
    process = shop.start("run", "app", "--http", str(port))
    assert process.stderr is not None
    while "the service started" not in process.stderr.readline():
        pass
    return Running(shop, process, f"http://127.0.0.1:{port}")


@pytest.fixture
def running(shop: Project) -> Running:
    shop.environ |= {"PROTOFLOW_HTTP_TOKEN": "operate", "PROTOFLOW_HTTP_READ_TOKEN": "read"}
    return start(shop)


def validated(verb: str, done: Done) -> Any:
    """The processes that a command has printed, as its committed schema has them."""
    schema = json.loads((Path(control.__file__).parents[1] / f"schemas/{verb}.json").read_text())
    content = done.json()
    jsonschema.Draft202012Validator(schema).validate(content)
    return content["processes"]


def test_pause_resume_and_drain(running: Running) -> None:
    for handler in ((), ("orders.placed/billing",)):
        done = running("pause", *handler)
        assert done.code == 0, done.err
        assert done.lines[0].split() == [
            "host", "pid", "subscription", "state", "in_flight", "handlers",
        ]  # fmt: skip
        assert "orders.placed/billing" in done.lines[1]
        assert " paused " in done.lines[1]
        assert "not on other processes of the group" in done.err
        (process,) = validated("resume", running("resume", *handler, "--json"))
        (subscription,) = process["subscriptions"]
        assert (subscription["state"], subscription["handlers"]) == ("running", [NAME])
        assert process["pid"] == running.process.pid
    assert running.shop("publish", "OrderPlaced", _PLACED).code == 0
    assert running.process.stdout is not None
    while running.process.stdout.readline() != "billed A-1\n":
        pass
    done = running("drain", NAME, "--json")
    assert (done.code, done.err.count("drain acts on")) == (0, 1)
    assert validated("drain", done)[0]["subscriptions"][0]["state"] == "drained"
    assert validated("drain", running("drain", "--json"))
    for verb in ("pause", "resume"):
        done = running(verb)
        assert (done.code, "is drained" in done.err) == (2, True)
    running.process.terminate()
    _, err = running.process.communicate(timeout=30)
    assert running.process.returncode == 0
    assert "an operator changed the service action=drain" in err
    assert "Traceback" not in err


def test_a_drain_that_takes_longer(shop: Project) -> None:
    text = (shop.folder / "app.py").read_text()
    slow = (
        "        import asyncio, pathlib\n"
        "        print('slow', flush=True)\n"
        "        while not pathlib.Path('go').exists():\n"
        "            await asyncio.sleep(0.05)\n"
    )
    shop.write("app.py", text.replace("        if not", f"{slow}        if not"))
    port = free_port()
    process = shop.start("run", "app", "--http", str(port))
    assert shop("publish", "OrderPlaced", _PLACED).code == 0
    assert process.stdout is not None
    while process.stdout.readline() != "slow\n":
        pass
    url = f"http://127.0.0.1:{port}"
    done = shop("drain", "--url", url, "--timeout", "0")
    assert (done.code, " draining " in done.out) == (4, True)
    shop.write("go", "")
    assert shop("drain", "--url", url).code == 0


def test_refusals(
    running: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb, handler, token, code, text in (
        ("pause", ["none"], "operate", 2, "none: no such subscription runs"),
        ("pause", [], "", 3, "a bearer token is needed"),
        ("resume", [], "wr\u00f6ng", 3, "PROTOFLOW_HTTP_TOKEN"),
        ("drain", [], "read", 3, "this token only reads"),
        ("drain", [], "two\nlines", 2, "has line breaks"),
    ):
        monkeypatch.setenv("PROTOFLOW_HTTP_TOKEN", token)
        assert main([verb, *handler, "--url", running.url]) == code
        out, err = capsys.readouterr()
        assert (out, text in err) == ("", True), err


@pytest.mark.parametrize(
    ("url", "code", "text"),
    [
        ("ftp://here", 2, "write http://HOST:PORT"),
        ("http://[", 2, "is not a URL"),
        ("http://host:port", 2, "is not a URL"),
        ("http://operate@127.0.0.1:1", 2, "give the token in PROTOFLOW_HTTP_TOKEN"),
        ("http://127.0.0.1:1?token=operate", 2, "give the token in PROTOFLOW_HTTP_TOKEN"),
        ("http://127.0.0.1:1", 3, "does not answer"),
    ],
)
def test_urls(url: str, code: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pause", "--url", url]) == code
    out, err = capsys.readouterr()
    assert (out, text in err) == ("", True), err


def test_what_is_no_service(capsys: pytest.CaptureFixture[str]) -> None:
    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(10_000)
            connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        assert main(["drain", "--url", f"http://127.0.0.1:{server.getsockname()[1]}"]) == 3
        thread.join()
    assert "it is not the HTTP API of a Protoflow service" in capsys.readouterr().err


def test_the_journal_holds_each_operator_action_once(shop: Project) -> None:
    shop.environ["PROTOFLOW_JOURNAL"] = "journal.db"
    running = start(shop)
    bad = [shop("publish", "OrderPlaced", '{"orderId": "A-2"}').lines[0] for _ in range(2)]
    deadline = time.monotonic() + 60
    while len(rows := shop("dlq", "list", "--json").json()) < len(bad):
        assert time.monotonic() < deadline
    for verb in ("pause", "resume", "drain"):
        assert running(verb).code == 0
    assert shop("dlq", "replay", bad[0], "--dry-run").code == 0
    assert shop("dlq", "replay", bad[0], "--yes").code == 0
    assert shop("dlq", "purge", "--all", "--yes").code == 0
    running.process.terminate()
    running.process.communicate(timeout=30)

    with JournalReader(str(shop.folder / "journal.db")) as journal:
        actions = sorted(journal.actions(), key=lambda action: action.time)
    subscription, dead = "orders.placed/billing", rows[0]["topic"]
    assert [(action.action, action.target, action.count) for action in actions] == [
        ("pause", subscription, 0), ("resume", subscription, 0), ("drain", subscription, 0),
        ("replay", dead, 1), ("purge", dead, 1),
    ]  # fmt: skip
    by = "by operate from 127.0.0.1"
    assert [action.detail for action in actions] == [by, by, by, "", ""]
    assert len({action.actor for action in actions}) == 2  # the service, and who ran the command
