"""What importing costs, and what the package exports."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import protoflow
import pytest
from protoflow.transport import kit
from protoflow.transports.built_in import BUILT_IN

from tests.acceptance.contract import program_environment

CLIENTS = {"aiohttp", *(client for item in BUILT_IN for client in item.clients)}
EXTRAS = CLIENTS | {
    *("jinja2", "black", "grpc", "grpc_tools", "protoc_gen_protoflow"),
    *("protovalidate", "prometheus_client", "opentelemetry", "psycopg", "redis"),
}


COMMON = "from protoflow import Service, Config, Context, Output"
#: The budget of protoflow modules that these load.
MOST_MODULES = 25
#: Of the standard library: what is dear, and what nobody needs who only names a service.
DEAR = {
    *("asyncio", "concurrent", "email", "hashlib", "http", "logging", "pathlib", "queue"),
    *("random", "signal", "socket", "sqlite3", "ssl", "subprocess", "tomllib", "urllib"),
}
#: What services are made of, and what optional parts are.
PARTS = {
    f"protoflow.{name}"
    for name in (
        *("attributes", "clock", "codecs.cloudevents", "connection", "contract.validation"),
        *("events", "middleware", "observability", "outbox", "pipeline", "publishing"),
        *("registrations", "scheduling", "service.startup", "stats", "testing", "tracing"),
        *("transport", "transports", "web"),
    )
}
#: Runs a service; prints what its first messages loaded: handled, retried, dead-lettered.
RUN = """
import asyncio, sys
from protoflow import Config, DeadLetter, Service
from suite.v1 import suite_pb2, suite_protoflow

class Handler(suite_protoflow.TransformHandler):
    async def transform(self, task, context, /):
        if task.number == 2:
            raise DeadLetter("wrong")
        if context.attempt == 1:
            raise ValueError("again")
        return suite_pb2.Done(number=task.number)

async def main():
    service = Service(Config(environ={}, transport="memory://"))
    service.register(Handler())
    async with service:
        before = set(sys.modules)
        producer = suite_protoflow.TransformProducer(service)
        for number in (1, 2):
            await producer.transform(suite_pb2.Task(number=number, key="k"))
        (stats,) = service.stats().values()
        while not (stats.retried and stats.handled and stats.dead_lettered):
            await asyncio.sleep(0.001)
        print(*set(sys.modules) - before)

asyncio.run(main())
"""


def printed_by(program: str) -> set[str]:
    """The words that a program prints in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=True, env=program_environment(),
    )  # fmt: skip
    return set(done.stdout.split())


def loaded_by(statement: str, *, after: str = "pass") -> set[str]:
    """The modules that a statement loads, beyond those that another has loaded."""
    return printed_by(
        f"import sys; {after}; before = set(sys.modules); {statement}; "
        "print(*set(sys.modules) - before)"
    )


def test_the_annotations_load_next_to_nothing() -> None:
    loaded = loaded_by("import protoflow.v1.options_pb2")
    assert {name for name in loaded if name.startswith("protoflow")} == {
        "protoflow",
        "protoflow.v1",
        "protoflow.v1.options_pb2",
    }
    assert not loaded & {*EXTRAS, "asyncio", "ulid"}


def test_the_common_names_load_no_extra_and_nothing_that_only_running_needs() -> None:
    loaded = loaded_by(COMMON)
    assert not loaded & {*EXTRAS, *DEAR, *PARTS, "ulid", "google.protobuf.descriptor"}


def test_the_common_names_load_few_modules() -> None:
    loaded = {name for name in loaded_by(COMMON) if name.partition(".")[0] == "protoflow"}
    assert len(loaded) <= MOST_MODULES, sorted(loaded)


@pytest.mark.parametrize("statement", [COMMON, "import protoflow.gencode"])
def test_what_is_loaded_first_is_in_packages_that_import_no_siblings(statement: str) -> None:
    loaded = loaded_by(statement)
    root = Path(protoflow.__path__[0]).parent
    files = [root.joinpath(*name.split("."), "__init__.py") for name in loaded]
    packages = [file for file in files if "protoflow" in file.parts and file.exists()]
    assert len(packages) > 1
    for file in packages:
        imports = [
            node for node in ast.parse(file.read_text()).body
            if isinstance(node, ast.Import | ast.ImportFrom)
        ]  # fmt: skip
        names = {getattr(node, "module", None) or ast.unparse(node) for node in imports}
        assert not {name for name in names if "protoflow" in name}, file


def test_a_generated_module_loads_the_contract_with_the_runtime_and_no_more() -> None:
    loaded = loaded_by(
        "import suite.v1.suite_protoflow", after="import suite.v1.suite_pb2, protoflow"
    )
    assert not loaded & {*EXTRAS, *DEAR, "ulid"}
    assert {name for name in loaded if name.startswith("protoflow.")} == {
        *("protoflow.context", "protoflow.contract", "protoflow.contract.spec"),
        *("protoflow.dataclass_record", "protoflow.error_codes", "protoflow.errors"),
        "protoflow.gencode",
        *("protoflow.handler", "protoflow.ids", "protoflow.output", "protoflow.producer"),
        *("protoflow.sync_context", "protoflow.wire"),
    }


def test_a_service_loads_only_the_optional_parts_that_it_has() -> None:
    optional = {"sqlite3", "protoflow.outbox", "protoflow.observability", "protoflow.web"}
    assert not loaded_by(f"{COMMON}; Service(Config())") & {*EXTRAS, *optional}


def test_the_first_messages_load_nothing() -> None:
    assert printed_by(RUN) == set()


def test_the_help_of_the_command_loads_no_command() -> None:
    loaded = loaded_by("from protoflow.cli.app import main; main(['--help'])")
    assert {name for name in loaded if name.startswith("protoflow.")} == {
        *("protoflow.cli", "protoflow.cli.app", "protoflow.cli.commands"),
        *("protoflow.cli.exits", "protoflow.error_codes", "protoflow.errors"),
    }
    assert not loaded & {*EXTRAS - {"click"}, *DEAR}


def test_test_helpers_load_no_test_framework() -> None:
    assert not loaded_by("import protoflow.testing") & {"pytest", "pytest_asyncio", "hypothesis"}


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


#: Paths that people import from, and a name of each: they stay where they are.
PUBLIC = {
    "protoflow": "Service",
    "protoflow.config": "Config",
    "protoflow.dead_letters": "DeadLetterFilter",
    "protoflow.errors": "ProtoflowError",
    "protoflow.gencode": "Handler",
    "protoflow.message": "Message",
    "protoflow.middleware.circuit_breaker": "CircuitBreaker",
    "protoflow.middleware.concurrency_limit": "concurrency_limit",
    "protoflow.middleware.deduplicate": "deduplicate",
    "protoflow.middleware.rate_limit": "rate_limit",
    "protoflow.observability.opentelemetry": "observe",
    "protoflow.observability.prometheus": "ServiceCollector",
    "protoflow.outbox": "SQLiteOutbox",
    "protoflow.outcomes": "Retry",
    "protoflow.pipeline": "Chain",
    "protoflow.service": "Service",
    "protoflow.testing": "run",
    "protoflow.testing.transports": "TransportTarget",
    "protoflow.transport": "Transport",
    "protoflow.transport.kit": "queue_subscription",
    "protoflow.v1.options_pb2": "DESCRIPTOR",
}


@pytest.mark.parametrize("path", PUBLIC)
def test_public_paths_stay(path: str) -> None:
    assert getattr(importlib.import_module(path), PUBLIC[path]) is not None


def test_at_most_24_modules_lie_flat() -> None:
    flat = [one.name for one in pkgutil.iter_modules(protoflow.__path__) if not one.ispkg]
    assert len(flat) + 1 <= 24, flat


@pytest.mark.parametrize("name", kit._HOMES)
def test_every_part_of_the_kit_resolves(name: str) -> None:
    assert getattr(kit, name) is not None
