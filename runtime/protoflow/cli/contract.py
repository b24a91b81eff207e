"""The contract for commands: finds and loads generated modules."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from protoflow.cli import settings
from protoflow.cli.target import import_module
from protoflow.config.options import did_you_mean
from protoflow.contract.catalog import Catalog
from protoflow.contract.spec import FileSpec, MessageSpec
from protoflow.error_codes import NO_CONTRACT
from protoflow.errors import ConfigError

_SUFFIX = "_protoflow"


def load(name: str | None) -> Catalog:
    """Returns the contract of `--contract`, of `[tool.protoflow] contract`, or of generated modules
    beneath the working directory.

    Raises:
        ConfigError: there is no contract, or it cannot be imported.
    """
    settings.use_working_directory()
    configured = settings.project_settings()
    wanted = name or configured.get("contract")
    if wanted:
        return _catalog([wanted])
    generate = configured.get("generate", {})
    modules = list(_generated(Path(generate.get("out", "gen")), generate.get("package", "")))
    if not modules:
        raise ConfigError(
            "no contract is known: give --contract MODULE, set `contract` in [tool.protoflow] of"
             " pyproject.toml, or run `protoflow generate`", code=NO_CONTRACT)  # fmt: skip
    return _catalog(modules)


def optional(name: str | None) -> Catalog:
    """Like `load`, but returns an empty contract if none is named and none is found."""
    try:
        return load(name)
    except ConfigError:
        if name or settings.project_settings().get("contract"):
            raise
        return Catalog(())


def message(catalog: Catalog, type: str) -> MessageSpec:
    """Returns a message by type. Raises ConfigError, which names similar types."""
    found = catalog.message(type)
    if found is None:
        ending = sorted(name for name in catalog.messages if name.endswith(f".{type}"))
        if len(ending) > 1:
            raise ConfigError(
                f"{type} is one of several types: {', '.join(ending)}", code=NO_CONTRACT
            )
        known = ", ".join(sorted(catalog.messages)) or "none"
        raise ConfigError(
            f"the contract has no type {type}{did_you_mean(type, catalog.messages)}; it has"
            f" {known}",
            code=NO_CONTRACT,
        )
    return found


def _catalog(names: list[str]) -> Catalog:
    files = [
        file for name in names for module in _modules(name) if (file := _spec(module)) is not None
    ]
    if not files:
        raise ConfigError(
            f"{', '.join(names)} contains no module that protoflow generated", code=NO_CONTRACT
        )
    return Catalog(files)


def _modules(name: str) -> Iterator[ModuleType]:
    """Returns a module, or all generated modules below a package."""
    module = import_module(name)
    yield module
    for found in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{name}."):
        if found.name.endswith(_SUFFIX):
            yield import_module(found.name)


def _spec(module: ModuleType) -> FileSpec | None:
    spec = getattr(module, "__protoflow_spec__", None)
    return spec if isinstance(spec, FileSpec) else None


def _generated(out: Path, package: str) -> Iterator[str]:
    importlib.invalidate_caches()
    for file in sorted(out.rglob(f"*{_SUFFIX}.py")):
        dotted = ".".join(file.relative_to(out).with_suffix("").parts)
        yield f"{package}.{dotted}" if package else dotted
