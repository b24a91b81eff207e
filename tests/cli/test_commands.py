"""Exit codes and output of commands that need no running service."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cli.conftest import Project

_PLACED = '{"orderId": "A-1", "cents": 5, "email": "ann@example.org"}'


def test_help_lists_every_command(project: Project) -> None:
    done = project("--help")
    assert done.code == 0
    for name in ("init", "generate", "run", "publish", "lag", "describe", "config", "version"):
        assert f"\n  {name} " in done.out
        assert project(name, "--help").code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["publish"],
        ["--nothing"],
        ["run", "nothing"],
        ["run", "app.py"],
        ["run", "app:Nothing"],
        ["run", "app", "--workers", "2", "--reload"],
        ["run", "app", "--workers", "2", "--transport", "memory://"],
        ["run", "broken"],
        ["publish", "Nothing", "{}"],
        ["publish", "OrderPlaced", "{]"],
        ["publish", "OrderPlaced", '{"nothing": 1}'],
        ["publish", "OrderPlaced", "@nothing.json"],
        ["publish", "OrderPlaced", "{}", "--metadata", "x"],
        ["publish", "OrderPlaced", "{}", "--delay", "nan"],
        ["publish", "OrderPlaced", "{}", "--delay", "1e300"],
        ["publish", "OrderPlaced", "{}", "--rate", "inf"],
        ["publish", "OrderPlaced", "{}", "--topic", ""],
        ["tail", "OrderPlaced", "--from", "0001-01-01"],
        ["dlq", "list", "--until", "9999-12-31T23:59:59-23:00"],
        ["dlq", "list", "--cursor", "x", "--topic", "orders.dead"],
        ["dlq", "replay", "--all", "--rate", "nan"],
        ["publish", "OrderPlaced", "{}", "--transport", "memory://"],
        ["publish", "OrderPlaced", "{}", "--transport", "nothing://"],
        ["publish", "OrderPlaced", "{}", "--contract", "nothing"],
        ["lag", "nothing"],
        ["config", "--config", "nothing.toml"],
    ],
)
def test_mistakes_end_with_2_and_a_sentence(shop: Project, arguments: list[str]) -> None:
    shop.write("broken.py", "1 / 0\n")
    done = shop(*arguments)
    assert done.code == 2, done.err
    assert done.out == ""
    assert len(done.err.splitlines()) <= 5
    assert any(line.lower().startswith("error: ") for line in done.err.splitlines()), done.err


def test_a_broker_that_is_not_there_ends_with_3(shop: Project) -> None:
    shop.environ["PROTOFLOW_CONNECT_TIMEOUT"] = "1"
    done = shop("publish", "OrderPlaced", "{}", "--transport", "nats://127.0.0.1:1")
    assert done.code == 3
    assert "127.0.0.1:1" in done.err


def test_secrets_are_never_printed(shop: Project) -> None:
    shop.use("amqp://ann:hunter2@127.0.0.1:1/")
    for arguments in (["config"], ["config", "--json"], ["describe"]):
        done = shop(*arguments)
        assert done.code == 0
        assert "hunter2" not in done.out + done.err


def test_publish_prints_one_id_a_line(shop: Project) -> None:
    done = shop("publish", "OrderPlaced", _PLACED, "--count", "3")
    assert (done.code, len({*done.lines}), done.err) == (0, 3, "")
    lines = shop("publish", "shop.v1.OrderPlaced", "-", "--json", stdin=f"{_PLACED}\n\n{_PLACED}\n")
    assert lines.out.count('"type": "shop.v1.OrderPlaced"') == 2
    shop.write("orders.jsonl", f"{_PLACED}\n")
    assert shop("publish", "OrderPlaced", "@orders.jsonl", "--key", "x", "--delay", "60").code == 0


def test_a_bad_line_is_named_by_its_number(shop: Project) -> None:
    done = shop("publish", "OrderPlaced", "-", stdin=f"{_PLACED}\n{{]\n")
    assert done.code == 4
    assert len(done.lines) == 1
    assert "standard input:2 is not a shop.v1.OrderPlaced" in done.err
    assert "1 published before this error" in done.err
    assert shop("publish", "OrderPlaced", "-", stdin="{]\n").code == 2


def test_lag_counts_what_waits(shop: Project) -> None:
    assert shop("run", "app:Nothing").code == 2
    (row,) = shop("lag", "--json").json()
    assert (row["topic"], row["group"], row["waiting"]) == ("orders.placed", "billing", 0)
    assert shop("lag", "billing").lines[0].split() == [
        "topic",
        "group",
        "waiting",
        "oldest_s",
        "note",
    ]


def test_describe_shows_the_plan_under_the_settings(shop: Project) -> None:
    shop.environ["PROTOFLOW_NAMESPACE"] = "eu"
    (row,) = shop("describe", "--json").json()["handlers"]
    assert row["handler"] == "shop.v1.Orders.BillOrder"
    assert row["topic"] == "eu..orders.placed"
    assert row["dead_letters"] == "eu..orders.placed..billing..dead"
    assert (row["ordering"], row["attempts"]) == ("per_key", 2)
    assert shop("describe", "--mermaid").lines[0] == "flowchart LR"


def test_config_shows_where_each_value_comes_from(shop: Project) -> None:
    shop.write("settings.toml", "namespace = 'eu'\n")
    shop.write("pyproject.toml", "[tool.protoflow]\nconfig = 'settings.toml'\n")
    found = shop("config", "--json").json()
    assert found["namespace"] == {"value": "eu", "from": "file"}
    assert found["transport"] == {"value": "sqlite:///shop.db", "from": "environment"}
    assert shop("version", "--json").json()["protoflow"]


def test_check_needs_no_broker_and_finds_what_a_start_would(shop: Project) -> None:
    shop.use("amqp://127.0.0.1:1/")
    done = shop("check")
    assert done.code == 0, done.out
    assert [line[:4] for line in done.lines] == ["ok  "] * 4
    shop.use("nats://127.0.0.1:1")
    done = shop("check")
    assert done.code == 1
    assert "FAIL plan: shop.v1.Orders.BillOrder: nats cannot keep order per key" in done.out
    shop.write("proto/shop/v1/orders.proto", "syntax = 'proto3';")
    rows = {row["check"]: row for row in shop("check", "--json").json()}
    assert rows["generated code"]["ok"] is False
    assert "run: protoflow generate" in rows["generated code"]["note"]


def test_topology_is_planned_applied_and_verified(shop: Project) -> None:
    planned = shop("topology", "plan")
    assert planned.code == 1
    assert {line[0] for line in planned.lines} == {"+"}
    assert shop("topology", "apply").code == 0
    verified = shop("topology", "verify", "--json")
    assert verified.code == 0
    assert {row["state"] for row in verified.json()} == {"="}


def test_doctor_names_what_is_broken(shop: Project) -> None:
    assert shop("doctor").code == 0
    shop.environ["PROTOFLOW_CONNECT_TIMEOUT"] = "1"
    done = shop("doctor", "--transport", "nats://127.0.0.1:1")
    assert done.code == 1
    assert any(line.startswith("FAIL broker: ") for line in done.lines)


def test_a_message_that_is_too_large_is_no_fault_of_the_broker(shop: Project) -> None:
    shop.use("sqlite:///shop.db?max_message_bytes=1000")
    text = json.dumps({"orderId": "x" * 2000})
    done = shop("publish", "OrderPlaced", "-", stdin=text)
    assert done.code == 2
    assert "max_message_bytes is 1000" in done.err


def test_a_closed_standard_input_is_named(shop: Project) -> None:
    closed = "import os, sys; os.close(0); os.execv(sys.argv[1], sys.argv[1:])"
    command = shop.command("publish", "OrderPlaced", "-")
    done = subprocess.run(
        [sys.executable, "-c", closed, *command], cwd=shop.folder, env=shop.environ,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "standard input is closed" in done.stderr


def _pyproject(shop: Project, text: str) -> str:
    shop.write("pyproject.toml", text)
    codes = {}
    for arguments in (["lag"], ["config"], ["generate", "-q"], ["describe"]):
        done = shop(*arguments)
        codes[done.code] = done.err
    assert list(codes) == [2], codes
    return codes[2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tool = 1", "tool.protoflow is not a table; write [tool.protoflow]"),
        ("[tool]\nprotoflow = 1", "tool.protoflow is not a table; write [tool.protoflow]"),
        ("[tool.protoflow]\ngenerate = 1", "[tool.protoflow] generate is 1; write a table"),
        ("[tool.protoflow]\nconfig = 5", "[tool.protoflow] config is 5; write a string"),
        ("[tool.protoflow]\ncontract = ['a']", "contract is ['a']; write a string"),
        ("[tool.protoflow]\nconfg = 'a'", "[tool.protoflow] has no confg; known: config"),
        ("[tool.protoflow.generate]\nout = 5", "out is 5; write a string"),
    ],
)
def test_mistakes_in_pyproject_are_named(shop: Project, text: str, said: str) -> None:
    assert said in _pyproject(shop, text)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["topology", "plan"], 1),
        (["topology", "verify"], 1),
        (["lag"], 0),
        (["doctor"], 0),
        (["dlq", "list"], 0),
        (["dlq", "purge", "--all", "--yes"], 0),
        (["tail", "OrderPlaced", "--no-follow"], 2),
    ],
)
def test_commands_that_look_make_no_file(shop: Project, arguments: list[str], code: int) -> None:
    assert shop(*arguments).code == code
    assert not (shop.folder / "shop.db").exists()


def test_a_folder_that_is_not_there_is_named(shop: Project) -> None:
    done = shop("topology", "plan", "--transport", "sqlite:///nothing/shop.db")
    assert done.code == 3
    assert "nothing does not exist" in done.err


def test_a_reader_that_goes_away_is_no_finding(shop: Project) -> None:
    assert shop("publish", "OrderPlaced", _PLACED, "--count", "3").code == 0
    running = shop.start("tail", "OrderPlaced", "--from", "earliest")
    assert running.stdout is not None
    assert running.stderr is not None
    assert "A-1" in running.stdout.readline()
    running.stdout.close()
    assert shop("publish", "OrderPlaced", _PLACED, "--count", "3").code == 0
    assert running.wait(timeout=30) == 0
    with running.stderr as said:
        assert said.read() == ""
