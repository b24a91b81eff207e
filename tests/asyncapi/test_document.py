"""Documents: valid, resolvable, deterministic, without secrets, and right."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from protoflow import asyncapi, deployment
from protoflow.contract.catalog import Catalog
from protoflow.middleware import default_chain
from protoflow.registrations.registry import Registry

from tests.asyncapi import peers
from tests.asyncapi.conftest import SECRETS, config

_KEY = re.compile(r"[a-zA-Z0-9.\-_]+")
_KEYED = ("servers", "channels", "operations")
Documents = dict[str, dict[str, Any]]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def resolved(document: dict[str, Any], reference: str) -> Any:
    """The target of a reference; KeyError if there is none."""
    assert reference.startswith("#/")
    found: Any = document
    for part in reference[2:].split("/"):
        found = found[part]
    return found


@pytest.mark.timeout(400)  # npm may have to fetch the schema first
def test_documents_are_valid_by_the_official_schema(documents: Documents) -> None:
    validator = jsonschema.Draft7Validator(peers.official_schema())
    for name, document in documents.items():
        assert [error.message for error in validator.iter_errors(document)] == [], name


@pytest.mark.timeout(400)
def test_the_official_parser_has_nothing_to_say(documents: Documents, tmp_path: Path) -> None:
    files = []
    for name in ("kafka", "rabbitmq", "jetstream", "sqlite", "protobuf"):
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(asyncapi.to_yaml(documents[name]), encoding="utf-8")
    broken = tmp_path / "broken.yaml"
    text = asyncapi.to_yaml({**documents["sqlite"], "components": {}})
    broken.write_text(text.replace("action: receive", "action: subscribe", 1))
    said = peers.diagnostics([*files, broken])
    assert said.pop(str(broken)) != []
    assert said == {str(file): [] for file in files}


def test_keys_have_the_syntax_that_the_schema_does_not_check(documents: Documents) -> None:
    for name, document in documents.items():
        maps = [document.get(part, {}) for part in _KEYED] + [*document["components"].values()]
        maps += [channel["messages"] for channel in document["channels"].values()]
        for keys in maps:
            assert [key for key in keys if not _KEY.fullmatch(key)] == [], name


def test_references_have_targets(documents: Documents) -> None:
    for document in documents.values():
        for reference in references(document):
            resolved(document, reference)


def test_messages_of_operations_are_those_of_their_channels(documents: Documents) -> None:
    for document in documents.values():
        for operation in document["operations"].values():
            channel = operation["channel"]["$ref"]
            for message in operation["messages"]:
                assert message["$ref"].startswith(f"{channel}/messages/")


def test_a_topic_has_one_channel(documents: Documents) -> None:
    for document in documents.values():
        addresses = [channel["address"] for channel in document["channels"].values()]
        assert len(addresses) == len({*addresses})


def test_parameters_are_those_of_the_address(documents: Documents) -> None:
    for document in documents.values():
        for channel in document["channels"].values():
            there = {*re.findall(r"\{(\w+)\}", channel["address"])}
            assert there == {*channel.get("parameters", {})}


def test_no_document_holds_a_secret(documents: Documents) -> None:
    for name, document in documents.items():
        texts = (
            asyncapi.to_json(document),
            asyncapi.to_yaml(document),
            asyncapi.to_html(document),
            json.dumps(document),
        )
        for text in texts:
            assert [secret for secret in SECRETS if secret in text] == [], name
            assert "hunter2-example" not in text


def test_documents_are_the_same_each_time(catalog: Catalog, documents: Documents) -> None:
    again = deployment.document(Catalog(reversed(catalog.files)), config("rabbitmq"))
    first = deployment.document(catalog, config("rabbitmq"))
    assert asyncapi.to_yaml(again) == asyncapi.to_yaml(first)
    assert asyncapi.to_json(again) == asyncapi.to_json(first)


def test_keys_are_the_same_wherever_the_contract_runs(documents: Documents) -> None:
    static = documents["static"]
    for name in ("kafka", "rabbitmq", "jetstream", "sqlite"):
        document = documents[name]
        retries = {key for key in document["channels"] if key.endswith("..retry")}
        assert document["channels"].keys() - retries == static["channels"].keys()
        assert document["operations"].keys() == static["operations"].keys()
        assert document["components"]["messages"].keys() == static["components"]["messages"].keys()


def test_operations_are_named_after_rpcs_and_producers(documents: Documents) -> None:
    actions = {name: one["action"] for name, one in documents["static"]["operations"].items()}
    assert actions == {
        "Orders.BillOrder": "receive",
        "AuditService.Drop": "receive",
        "AuditService.Once": "receive",
        "AuditService.Waits": "receive",
        "AuditService.Watch": "receive",
        "Orders.BillOrder.output": "send",
        "OrdersEventProducer.publish_order_placed": "send",
        "KindsEventProducer.publish_everything": "send",
        "LimitsEventProducer.publish_texts": "send",
        "LimitsEventProducer.publish_numbers": "send",
        "LimitsEventProducer.publish_groups": "send",
    }
    client = documents["client"]
    other = {"send": "receive", "receive": "send"}
    assert {name: one["action"] for name, one in client["operations"].items()} == {
        name: other[action] for name, action in actions.items()
    }
    assert client["info"]["title"] == "Clients"
    assert client["info"]["version"] == "7"
    assert not any("x-protoflow" in one for one in client["operations"].values())


def test_policies_stand_in_both_forms(documents: Documents) -> None:
    operations = documents["static"]["operations"]
    billed = operations["Orders.BillOrder"]
    assert billed["x-protoflow"] == {
        "group": "billing.{env}",
        "ordering": "PER_KEY",
        "concurrency": 16,
        "retry": {
            "maxAttempts": 3, "initial": "0.5s", "multiplier": 2, "max": "3s", "jitter": 0.5,
        },
        "onExhausted": "DEAD_LETTER",
        "unhandled": "SKIP",
        "start": "EARLIEST",
        "timeout": "30s",
        "deadLetter": {"$ref": "#/channels/shop.env.orders.placed..billing.env..dead"},
    }  # fmt: skip
    assert billed["x-retry"]["maxAttempts"] == 2  # beyond the first run
    assert billed["x-retry"]["strategy"] == {
        "type": "exponential", "initialDelaySeconds": 1, "multiplier": 2, "maxDelaySeconds": 3,
    }  # fmt: skip
    dead = "#/channels/shop.env.orders.placed..billing.env..dead"
    assert billed["x-deadLetter"]["channel"] == {"$ref": dead}
    assert billed["x-deadLetter"]["messages"] == [{"$ref": f"{dead}/messages/shop.v1.OrderPlaced"}]
    dropped = operations["AuditService.Drop"]
    assert "x-deadLetter" not in dropped
    assert dropped["x-retry"]["strategy"] == {"type": "fixed", "delaySeconds": 1}
    assert "x-retry" not in operations["AuditService.Once"]
    waits = operations["AuditService.Waits"]["x-protoflow"]
    assert waits["batch"] == {"maxMessages": 50, "maxWait": "2s"}
    assert waits["deadLetter"]["$ref"].endswith("/dead.shop.env.orders.placed.waits")
    assert operations["AuditService.Watch"]["x-protoflow"]["broadcast"] is True


def test_messages_say_type_key_and_encoding(documents: Documents) -> None:
    messages = documents["kafka"]["components"]["messages"]
    placed, billed = messages["shop.v1.OrderPlaced"], messages["shop.v1.OrderBilled"]
    assert placed["contentType"] == "application/protobuf"
    assert placed["x-protoflow-key"] == "order_id"
    assert placed["x-protoflow-subject"] == "order_id"
    assert placed["x-protoflow-aliases"] == ["shop.Order"]
    assert placed["x-protoflow-sensitive"] == ["email"]
    assert placed["summary"] == "A customer placed an order."
    assert placed["bindings"]["kafka"]["key"] == {"type": "string"}
    assert billed["contentType"] == "application/json"
    assert billed["tags"] == [{"name": "deprecated"}]
    headers = billed["headers"]["properties"]
    assert headers["ce_type"]["const"] == "com.shop.billed"
    assert headers["ce_dataschema"]["const"] == "https://shop.example/billed"
    assert billed["bindings"]["kafka"]["key"]["pattern"] == "^-?[0-9]+$"


def test_structured_mode_has_an_envelope(documents: Documents) -> None:
    messages = documents["sqlite"]["components"]["messages"]
    billed = messages["shop.v1.OrderBilled"]
    assert billed["contentType"] == "application/cloudevents+json"
    assert billed["payload"]["properties"]["data"] == {
        "$ref": "#/components/schemas/shop.v1.OrderBilled"
    }
    placed = messages["shop.v1.OrderPlaced"]["payload"]["properties"]
    assert placed["data_base64"]["contentEncoding"] == "base64"
    assert "headers" not in billed


def test_services_of_one_name_have_their_full_names(catalog: Catalog) -> None:
    from dataclasses import replace

    (file,) = (file for file in catalog.files if file.services)
    methods = tuple(
        replace(method, name=method.name.replace("shop.v1", "other.v1"), group=f"{method.group}-2")
        for method in file.services[0].methods
    )
    service = replace(file.services[0], methods=methods)
    other = replace(file, source="other.proto", services=(service,))
    operations = asyncapi.document(Catalog([file, other]))["operations"]
    assert {"shop.v1.Orders.BillOrder", "other.v1.Orders.BillOrder"} <= operations.keys()
    assert "AuditService.Drop" in operations


def test_an_empty_contract_has_a_valid_document() -> None:
    document = asyncapi.document(Catalog([]))
    assert document["info"]["title"] == "protoflow"
    assert document["channels"] == document["operations"] == {}
    assert asyncapi.to_html(document).startswith("<!doctype html>")


def test_a_service_describes_the_methods_that_it_handles(catalog: Catalog) -> None:
    import importlib

    orders: Any = importlib.import_module("shop.v1.orders_protoflow")

    class Billing(orders.OrdersHandler):  # type: ignore[misc]
        async def bill_order(self, message: Any, context: Any, /) -> None:
            """Bills nothing."""

    async def raw(message: Any, context: Any) -> None:
        """Is not in the contract."""

    registry = Registry(default_chain(), str)
    registry.register(Billing())
    registry.register_message_handler("raw", "raw", raw)
    found = deployment.catalog_of(registry.registrations)
    document = deployment.document(found, config("sqlite"))
    received = [name for name, one in document["operations"].items() if one["action"] == "receive"]
    assert received == ["Orders.BillOrder"]
    assert document["operations"]["Orders.BillOrder"]["summary"] == "Bills an order."


def test_the_plugin_describes_a_file_as_its_module_does(generated: Path, catalog: Catalog) -> None:
    """Rules, policies and sensitive fields: from descriptors here, from the request there."""
    for file in catalog.files:
        path = generated / f"{file.source.removesuffix('.proto')}.asyncapi.yaml"
        by_plugin = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert without_comments(by_plugin) == without_comments(asyncapi.document(Catalog([file])))
    schemas = by_plugin["components"]["schemas"]
    line = schemas["shop.v1.OrderPlaced"]["properties"]["orderId"]
    assert line["description"] == "The number on the invoice."  # which the module does not keep


def without_comments(value: Any) -> Any:
    """Plain data without what comments of the .proto say."""
    if isinstance(value, dict):
        return {
            name: without_comments(inner)
            for name, inner in value.items()
            if not (name in ("summary", "description") and isinstance(inner, str))
        }
    return [without_comments(inner) for inner in value] if isinstance(value, list) else value
