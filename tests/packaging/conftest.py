"""Distributions built from this checkout, and fresh environments that they are installed in."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.outside import outside

ROOT = Path(__file__).parents[2]
PROTOS = ROOT / "examples" / "orders" / "proto"


def run(*command: object, cwd: Path, **environment: str) -> str:
    """The standard output of a command that must succeed, far from this checkout."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**outside(), **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Distributions:
    """What `python -m build` makes."""

    wheel: Path
    sdist: Path


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and an empty directory beside it."""

    directory: Path
    work: Path

    @property
    def python(self) -> Path:
        return self.directory / "bin" / "python"

    @property
    def plugin(self) -> Path:
        return self.directory / "bin" / "protoc-gen-protoflow"

    def run(self, *arguments: object, **environment: str) -> str:
        """Runs its Python."""
        return run(self.python, *arguments, cwd=self.work, **environment)

    def generate(self) -> Path:
        """Generates the orders example; the directory for PYTHONPATH."""
        out = self.work / "gen"
        out.mkdir(exist_ok=True)
        include = run(self.plugin, "--include", cwd=self.work).strip()
        self.run(
            *("-m", "grpc_tools.protoc", f"--plugin=protoc-gen-protoflow={self.plugin}"),
            *(f"-I{PROTOS}", f"-I{include}", f"--python_out={out}", f"--protoflow_out={out}"),
            "shop/v1/orders.proto",
        )
        return out


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    out = tmp_path_factory.mktemp("dist")
    # The wheel is built from the sdist.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (wheel,) = out.glob("*.whl")
    (sdist,) = out.glob("*.tar.gz")
    return Distributions(wheel, sdist)


@pytest.fixture(scope="session")
def wheelhouse(distributions: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What installing needs, so that each environment is made without the network."""
    house = tmp_path_factory.mktemp("wheelhouse")
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--dest", house)
    extras = "cli,codegen,http,kafka,testing"
    run(*pip, f"{distributions.wheel}[{extras}]", "hatchling", "editables", cwd=house)
    return house


@pytest.fixture(scope="session")
def environment(
    wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Environment]:
    """Makes an environment and installs into it."""

    def make(name: str, *requirements: object) -> Environment:
        directory = tmp_path_factory.mktemp(name)
        venv.create(directory / "venv", symlinks=True)
        made = Environment(directory / "venv", directory / "work")
        made.work.mkdir()
        # What is imported is compiled then: a small part of what is installed.
        options = ("--quiet", "--no-compile", "--no-index", "--find-links", wheelhouse)
        pip = (sys.executable, "-m", "pip", "--python", made.python, "install", *options)
        run(*pip, *requirements, cwd=directory)
        return made

    return make
