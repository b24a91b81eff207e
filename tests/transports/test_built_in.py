"""The record of a built-in transport is what everything else says of it."""

from __future__ import annotations

import configparser
import importlib
import re
import tomllib
from pathlib import Path

import pytest
from protoflow import transports
from protoflow.config.options import parse_options
from protoflow.config.url import TransportURL
from protoflow.errors import ConfigError
from protoflow.transport import TransportSettings
from protoflow.transports.built_in import BUILT_IN, BY_SCHEME, BuiltInTransport, messaging_system

ROOT = Path(__file__).parents[2]
each = pytest.mark.parametrize("record", BUILT_IN, ids=lambda record: record.name)


def name_of(requirement: str) -> str:
    found = re.match(r"[a-z0-9-]+", requirement)
    assert found
    return found[0]


@each
def test_the_extra_of_a_transport_installs_its_client(record: BuiltInTransport) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    if not record.extra:
        assert not record.clients
        return
    assert {name_of(item) for item in extras[record.extra]} == set(record.clients.values())
    (everything,) = extras["all"]
    assert record.extra in re.findall(r"[a-z]+", everything.partition("[")[2])


@each
def test_no_other_package_may_import_the_client_of_a_transport(record: BuiltInTransport) -> None:
    rules = configparser.ConfigParser()
    rules.read(ROOT / ".importlinter")
    allowed = {
        client: rules[section]["allowed_importers"].split()
        for section in rules.sections()
        if rules[section].get("type") == "protected"
        for client in rules[section]["protected_modules"].split()
    }
    package = f"protoflow.transports.{record.module.partition('.')[0]}"
    shared = {
        # aiohttp also calls schema registries and serves the pages; its API takes yarl's URLs.
        "yarl": ["protoflow.schema_registry.client", "protoflow.web"],
        "aiohttp": ["protoflow.http_server", "protoflow.schema_registry.client", "protoflow.web"],
        "asyncpg": ["protoflow.outbox", "protoflow.inbox.inbox"],  # the latter its types only
    }
    for client in record.clients:
        assert allowed[client] == [package, *shared.get(client, [])]


@each
def test_each_scheme_of_a_transport_makes_it(record: BuiltInTransport) -> None:
    plain, _, rest = record.example.partition("://")
    assert plain == record.schemes[0]
    made = {
        type(transports.create(TransportSettings(url=TransportURL.parse(f"{scheme}://{rest}"))))
        for scheme in record.schemes
    }
    assert len(made) == 1
    module, _, name = record.options.partition(":")
    options = getattr(importlib.import_module(f"protoflow.transports.{module}"), name)
    assert parse_options(options, {}, {}, record.name) == options()


def test_no_scheme_and_no_name_is_that_of_two_transports() -> None:
    assert len(BY_SCHEME) == sum(len(record.schemes) for record in BUILT_IN)
    assert len({record.name for record in BUILT_IN}) == len(BUILT_IN)


def test_an_unknown_scheme_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match=r"unknown scheme pigeon://; known are .*amqps.*sqlite"):
        transports.factory("pigeon")


def test_the_messaging_system_is_that_of_the_semantic_conventions() -> None:
    assert messaging_system("amqps") == "rabbitmq"
    assert messaging_system("jetstream+tls") == messaging_system("nats") == "nats"
    assert messaging_system("kafka+ssl") == "kafka"
    assert messaging_system("of-a-third-party") == "of-a-third-party"
