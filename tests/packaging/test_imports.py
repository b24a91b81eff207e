"""What importing costs, and what the package exports."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import protoflow
import pytest

CLIENTS = {"aiokafka", "aio_pika", "aiormq", "pamqp", "nats", "aiohttp", "aiobotocore"}
EXTRAS = CLIENTS | {
    *("jinja2", "black", "grpc", "grpc_tools", "protoc_gen_protoflow"),
    *("protovalidate", "prometheus_client", "opentelemetry", "psycopg", "redis"),
}


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a statement loads in a fresh interpreter."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_annotations_load_next_to_nothing() -> None:
    loaded = loaded_by("import protoflow.v1.options_pb2")
    assert {name for name in loaded if name.startswith("protoflow")} == {
        "protoflow",
        "protoflow.v1",
        "protoflow.v1.options_pb2",
    }
    assert not loaded & {*EXTRAS, "asyncio", "ulid"}


def test_the_common_names_load_no_extra() -> None:
    loaded = loaded_by("from protoflow import Service, Config, Context, Output")
    assert not loaded & EXTRAS


@pytest.mark.parametrize("name", protoflow.__all__)
def test_every_exported_name_resolves(name: str) -> None:
    assert getattr(protoflow, name) is not None
    assert name in dir(protoflow)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        getattr(protoflow, "Nonsense")  # noqa: B009


def test_no_exported_name_is_a_submodule() -> None:
    submodules = {module.name for module in pkgutil.iter_modules(protoflow.__path__)}
    assert not submodules & set(protoflow.__all__)


def test_exports_are_sorted_and_typed() -> None:
    assert list(protoflow.__all__) == sorted(protoflow.__all__)
    homes = {*protoflow._HOMES, "__version__"}
    assert set(protoflow.__all__) == homes
