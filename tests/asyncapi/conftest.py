"""The contract of the tests, generated once, and its documents."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from protoflow import Config, asyncapi, deployment
from protoflow.asyncapi import Payload, Perspective
from protoflow.cli.generate import output, project
from protoflow.contract.catalog import Catalog

HERE = Path(__file__).parent
SECRETS = ("hunter2", "s3cret-token", "ann.user")
#: A transport and its settings, by the name of the document.
DEPLOYMENTS: Mapping[str, Mapping[str, Any]] = {
    "kafka": {
        "transport": "kafka+ssl://ann.user:hunter2@k1:9093,k2?sasl_mechanism=scram-sha-512",
        "transport_options": {"partitions": 12, "replication": 3},
        "namespace": "prod",
    },
    "rabbitmq": {
        "transport": "amqps://ann.user:hunter2@rabbit/sales",
        "retry_in_place": 0.1,
    },
    "jetstream": {
        "transport": "jetstream://n1?shards=2",
        "transport_options": {"token": "s3cret-token"},
    },
    "sqlite": {"transport": "sqlite:///queue.db", "structured": True},
}


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contract, generated as the command does it."""
    folder = tmp_path_factory.mktemp("contract")
    shutil.copytree(HERE / "proto", folder / "proto")
    (folder / "pyproject.toml").write_text('[tool.protoflow.generate]\nasyncapi = "yaml"\n')
    output.write(output.difference(project.load(folder), folder), folder / "gen")
    return folder / "gen"


@pytest.fixture(scope="session")
def catalog(generated: Path) -> Iterator[Catalog]:
    """The contract, loaded."""
    sys.path.insert(0, str(generated))
    names = ("shop.v1.orders", "kinds.v1.kinds", "limits.v1.limits")
    yield Catalog(importlib.import_module(f"{name}_protoflow").__protoflow_spec__ for name in names)
    sys.path.remove(str(generated))


def config(name: str) -> Config:
    """The settings of a deployment."""
    return Config(environ={}, variables={"env": "live"}, **DEPLOYMENTS[name])


@pytest.fixture(scope="session")
def documents(catalog: Catalog) -> dict[str, dict[str, Any]]:
    """A document of every kind."""
    made = {name: deployment.document(catalog, config(name)) for name in DEPLOYMENTS}
    made["static"] = asyncapi.document(catalog, comments=asyncapi.comments_of(catalog))
    made["protobuf"] = asyncapi.document(catalog, payload=Payload.PROTOBUF)
    made["client"] = deployment.document(
        catalog, config("kafka"), perspective=Perspective.CLIENT, title="Clients", version="7"
    )
    return made
