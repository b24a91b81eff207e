"""Installs a wheel into environments of the Python that runs this, and uses it there.

It needs only the standard library, so it also runs inside a container or a chroot:

    python3.13 scripts/release/installation.py WHEEL core
    python3.13 scripts/release/installation.py WHEEL extras kafka nats
    python3.13 scripts/release/installation.py WHEEL suite TREE [CONSTRAINTS]
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

#: What an installed extra makes importable.
IMPORTS = {
    "cli": "protoflow.cli.app",
    "codegen": "protoc_gen_protoflow.render, jinja2, black, grpc_tools.protoc",
    "kafka": "protoflow.transports.kafka, aiokafka",
    "rabbitmq": "protoflow.transports.rabbitmq, aio_pika",
    "nats": "protoflow.transports.nats, nats, nkeys",
    "postgres": "protoflow.transports.postgresql, asyncpg",
    "psycopg": "protoflow.database.postgresql, psycopg",
    "sqlalchemy": "protoflow.database.sqlalchemy, sqlalchemy.ext.asyncio",
    "redis": "protoflow.transports.redis, redis.asyncio, hiredis",
    "sqs": "protoflow.transports.sqs, aiobotocore.session",
    "http": "protoflow.transports.http, protoflow.web.server, aiohttp",
    "registry": "protoflow.schema_registry, aiohttp",
    "validate": "protoflow.middleware, protovalidate",
    "metrics": "protoflow.observability.prometheus",
    "tracing": "protoflow.observability.opentelemetry, opentelemetry.sdk.trace",
    "testing": "protoflow.testing, pytest, pytest_asyncio",
}
#: What an extra needs besides itself to be imported: a psycopg without a library cannot be.
BESIDES = {"psycopg": ["psycopg[binary]"]}
#: What runs from the tree: the tutorial, the examples, modules of past levels, the transports.
SUITE = (
    "tests/packaging/test_tutorial.py",
    "tests/packaging/test_docs.py::test_the_first_example_runs",
    "tests/examples/test_orders.py::test_the_demo_accounts_for_every_order",
    "tests/examples/test_orders.py::test_the_example_tests_itself_and_finds_a_careless_bank",
    "tests/examples/test_webhooks.py",
    "tests/gencode",
)
TOOLS = ("pytest", "pytest-asyncio", "pytest-timeout", "hypothesis", "httpx", "PyYAML")


class Environment:
    """A fresh virtual environment, in a directory that is far from the repository."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bin = directory / "venv" / ("Scripts" if os.name == "nt" else "bin")
        # The pip of this interpreter installs faster than one that is installed first.
        own = importlib.util.find_spec("pip") is not None
        venv.create(directory / "venv", with_pip=not own, symlinks=os.name != "nt")
        self._pip = [sys.executable, "-m", "pip", "--python", self.bin / "python"]
        if not own:
            self._pip = [self.bin / "python", "-m", "pip"]

    def run(self, *command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Runs a command of the environment, which knows nothing of this checkout."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "PYTEST_", "VIRTUAL_ENV"))
        }
        program, *arguments = (str(part) for part in command)
        return subprocess.run(
            # An absolute path stays what it is.
            [str(self.bin / program), *arguments],
            cwd=cwd or self.directory,
            env={**kept, "PATH": f"{self.bin}{os.pathsep}{kept['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )

    def install(self, *requirements: object) -> None:
        """Installs, or ends the program with what pip says."""
        options = ("--quiet", "--disable-pip-version-check", "--no-compile")
        done = self.run(*self._pip, "install", *options, *requirements)
        if done.returncode:
            sys.exit(f"pip install {' '.join(map(str, requirements))}\n{done.stderr}")


def use_extra(wheel: Path, extra: str) -> str:
    """Installs one extra alone, imports what it is for, and asks the command for help."""
    with tempfile.TemporaryDirectory(prefix="protoflow-extra-") as directory:
        made = Environment(Path(directory))
        made.install(f"{wheel}[{extra}]", *BESIDES.get(extra, []))
        imported = made.run("python", "-c", f"import {IMPORTS[extra]}")
        if imported.returncode:
            return imported.stderr
        command = made.run("protoflow", "--help")
        # Without click it names the extra that it needs.
        fine = command.returncode == 0 and "Usage: protoflow" in command.stdout
        named = command.returncode == 2 and "pip install" in command.stderr
        return "" if fine or named else command.stdout + command.stderr


#: A message on SQLite, without an extra.
MESSAGE = """
import asyncio, protoflow
async def main():
    async with protoflow.connect("sqlite:///queue.db") as publisher:
        return len(await publisher.publish_data("orders", "/shop", {"id": 7}))
print("published on SQLite, id of", asyncio.run(main()), "characters")
"""


def use_core(wheel: Path) -> str:
    """Installs the wheel without an extra, and publishes a message."""
    with tempfile.TemporaryDirectory(prefix="protoflow-core-") as directory:
        made = Environment(Path(directory))
        made.install(wheel)
        done = made.run("python", "-c", MESSAGE)
        if done.returncode:
            sys.exit(done.stderr)
        return done.stdout.strip()


def use_all(wheel: Path, tree: Path, constraints: Path | None) -> str:
    """Runs the suite from a tree that has no sources of its own; returns its last lines."""
    with tempfile.TemporaryDirectory(prefix="protoflow-all-") as directory:
        made = Environment(Path(directory))
        bound = ["--constraint", constraints] if constraints else []
        made.install(f"{wheel}[all,psycopg,sqlalchemy,testing]", *TOOLS, *bound)
        where = made.run("python", "-c", "import protoflow; print(protoflow.__file__)").stdout
        if not where.startswith(str(made.directory.resolve())):
            sys.exit(f"protoflow is imported from {where}, not from the installed wheel")
        # Old libraries lack names that a transport imports.
        modules = ", ".join(text for extra, text in IMPORTS.items() if extra not in BESIDES)
        imported = made.run("python", "-c", f"import {modules}")
        if imported.returncode:
            sys.exit(imported.stderr)
        done = made.run(
            *("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "300", *SUITE),
            cwd=tree,
        )
        lines = done.stdout.strip().splitlines()
        if done.returncode:
            sys.exit("\n".join([*lines, done.stderr]))
        return lines[-1].strip("= ")


def main(wheel: str, what: str, *arguments: str) -> None:
    """Does what the arguments say; exits with 1 and the reason if something fails."""
    file = Path(wheel).resolve()
    if what == "core":
        print(use_core(file))
        return
    if what == "suite":
        constraints = Path(arguments[1]).resolve() if arguments[1:] else None
        print(use_all(file, Path(arguments[0]).resolve(), constraints))
        return
    failed = 0
    for extra in arguments:
        started = time.monotonic()
        problem = use_extra(file, extra)
        print(f"  {extra:12} {time.monotonic() - started:5.1f} s  {problem or 'ok'}", flush=True)
        failed += bool(problem)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main(*sys.argv[1:])
