"""Exit codes and output of commands that need no running service."""

from __future__ import annotations

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
    assert done.code == 2
    assert len(done.lines) == 1
    assert "standard input:2 is not a shop.v1.OrderPlaced" in done.err


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


def test_a_folder_that_is_not_there_is_told(shop: Project) -> None:
    done = shop("topology", "plan", "--transport", "sqlite:///nothing/shop.db")
    assert done.code == 3
    assert "nothing does not exist" in done.err
