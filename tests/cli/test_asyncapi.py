"""`protoflow asyncapi`: its output, its exit codes, and that the plugin says the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.cli.conftest import ORDERS, Project


def described(project: Project, *arguments: str) -> Any:
    done = project("asyncapi", *arguments)
    assert done.code == 0, done.err
    return yaml.safe_load(done.out)


def test_the_document_names_the_broker_and_no_secret(shop: Project) -> None:
    shop.use("amqp://ann:hunter2@rabbit:5673/sales")
    done = shop("asyncapi")
    assert (done.code, done.err) == (0, "")
    assert "hunter2" not in done.out
    assert "ann" not in done.out.replace("channel", "")
    document = yaml.safe_load(done.out)
    assert document["servers"]["broker"]["host"] == "rabbit:5673"
    assert shop("asyncapi", "--json").json() == document
    assert document["channels"].keys() == {
        "orders.placed", "orders.placed..billing..dead", "orders.billed",
    }  # fmt: skip


def test_the_plugin_and_the_command_agree(shop: Project) -> None:
    project_file = '[tool.protoflow.generate]\nasyncapi = "json"\n'
    shop.write("pyproject.toml", project_file)
    shop.write(
        "proto/shop/v1/orders.proto", ORDERS.replace("  rpc Bill", "  // Bills.\n  rpc Bill")
    )
    assert shop("generate", "-q").code == 0
    file = shop.folder / "gen/shop/v1/orders.asyncapi.json"
    by_plugin = json.loads(file.read_text())
    assert by_plugin["operations"]["Orders.BillOrder"]["summary"] == "Bills."
    assert described(shop, "--static") == by_plugin
    deployed = described(shop)
    for part in ("channels", "operations", "components"):
        assert deployed[part] == by_plugin[part]
    assert shop("generate", "--check").code == 0
    file.write_text("{}")
    assert shop("generate", "--check").code == 1
    shop.write("pyproject.toml", "[tool.protoflow.generate]\n")
    stale = shop("generate", "--check")
    assert (stale.code, "orders.asyncapi.json" in stale.out + stale.err) == (1, True)


def test_a_page_is_written(shop: Project) -> None:
    done = shop("asyncapi", "--html", "page.html")
    assert (done.code, done.out, done.err) == (0, "", "wrote page.html\n")
    page = (shop.folder / "page.html").read_text()
    assert page.startswith("<!doctype html>")
    assert shop("asyncapi", "--html", "-").out == page


def test_options_change_the_document(shop: Project) -> None:
    document = described(
        shop, "--perspective", "client", "--title", "Shop", "--doc-version", "2", "--payload",
        "protobuf",
    )  # fmt: skip
    assert document["operations"]["Orders.BillOrder"]["action"] == "send"
    assert document["info"] | {"x-protoflow-sources": []} == {
        "title": "Shop", "version": "2", "x-protoflow-sources": [],
        "x-protoflow-transport": "sqlite",
    }  # fmt: skip
    payload = document["components"]["messages"]["shop.v1.OrderPlaced"]["payload"]
    assert payload["schema"].startswith('syntax = "proto3";')


@pytest.mark.parametrize(
    "arguments",
    [
        ["asyncapi", "--contract", "nothing"],
        ["asyncapi", "--payload", "avro"],
        ["asyncapi", "--perspective", "nobody"],
        ["asyncapi", "--transport", "nothing://"],
        ["asyncapi", "--config", "nothing.toml"],
        ["asyncapi", "--static", "--transport", "memory://"],
        ["asyncapi", "--html", "page.html", "--json"],
        ["asyncapi", "--html", "nothing/page.html"],
        ["asyncapi", "more"],
    ],
)
def test_mistakes_end_with_2_and_a_sentence(shop: Project, arguments: list[str]) -> None:
    done = shop(*arguments)
    assert (done.code, done.out) == (2, ""), done.err
    assert any(line.lower().startswith("error: ") for line in done.err.splitlines()), done.err


def test_a_variable_without_a_value_is_named(shop: Project) -> None:
    shop.write("proto/shop/v1/orders.proto", ORDERS.replace('"orders.placed"', '"{env}.placed"'))
    assert shop("generate", "-q").code == 0
    done = shop("asyncapi")
    assert (done.code, done.out) == (2, "")
    assert "variables.env" in done.err
    assert described(shop, "--static")["channels"]["env.placed"]["address"] == "{env}.placed"
    shop.environ["PROTOFLOW_VARIABLES__ENV"] = "live"
    assert described(shop)["channels"]["env.placed"]["address"] == "live.placed"
