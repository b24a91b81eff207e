"""A contract with an import, a registry of its own for each session, and topics on Kafka."""

from __future__ import annotations

import importlib
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from protoflow import Config
from protoflow.cli.generate import output, project

from tests.brokers import apicurio, skip_or_fail, url_or_skip
from tests.brokers.base import BrokerUnavailable

HERE = Path(__file__).parent


@pytest.fixture(scope="session", name="generated")
def generated_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of generated modules, on `sys.path`."""
    folder = tmp_path_factory.mktemp("contract")
    shutil.copytree(HERE / "proto", folder / "proto")
    (folder / "pyproject.toml").write_text("")
    output.write(output.difference(project.load(folder), folder), folder / "gen")
    sys.path.insert(0, str(folder / "gen"))
    yield folder / "gen"
    sys.path.remove(str(folder / "gen"))


@pytest.fixture(scope="session")
def pb2(generated: Path) -> Any:
    """The messages of the contract."""
    return importlib.import_module("registry.v1.orders_pb2")


@pytest.fixture(scope="session")
def contract(pb2: Any) -> Any:
    """The handlers and producers of the contract."""
    return importlib.import_module("registry.v1.orders_protoflow")


@pytest.fixture(scope="session")
def apicurio_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("apicurio") / "log"


@pytest.fixture(scope="session")
def registry(apicurio_log: Path) -> Iterator[apicurio.Apicurio]:
    """A real registry, which no test stops."""
    try:
        with apicurio.running(apicurio_log) as found:
            yield found
    except BrokerUnavailable as error:
        skip_or_fail("kafka", error)


class Place:
    """A namespace of one test on Kafka, and the registry."""

    def __init__(self, url: str, registry_url: str) -> None:
        self.url = url
        self.registry_url = registry_url
        self.namespace = f"r{uuid.uuid4().hex[:10]}"

    def config(self, *, registry: dict[str, Any] | None = None, **settings: Any) -> Config:
        options = {"url": self.registry_url, "auto_register": True} | (registry or {})
        return Config(
            transport=self.url, namespace=self.namespace, environ={},
            schema_registry=options, connect_timeout=20, **settings,
        )  # fmt: skip

    def topic(self, name: str) -> str:
        return f"{self.namespace}..{name}"


@pytest.fixture
def place(registry: apicurio.Apicurio) -> Place:
    return Place(url_or_skip("kafka"), registry.url)
