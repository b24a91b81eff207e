"""The common options of most commands, and the settings made from them."""

from __future__ import annotations

import functools
import os
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from protoflow.config import Config
from protoflow.error_codes import NO_TRANSPORT, PROJECT
from protoflow.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])

#: The allowed keys of `[tool.protoflow]`.
_KNOWN = {"config": str, "contract": str, "service": str, "generate": dict}

_OPTIONS = (
    click.option("--transport", metavar="URL", help="URL of the broker."),
    click.option("--config", "config_file", metavar="FILE", help="TOML file with the settings."),
)
_CONTRACT = click.option(
    "--contract", "contract_name", metavar="MODULE", help="Module or package of generated code."
)
_LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR"]
_LOGS = (
    click.option("--log-format", type=click.Choice(["text", "json"]), default="text"),
    click.option("--log-level", type=click.Choice(_LEVELS), default="INFO"),
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def connects(command: F) -> F:
    """Adds --transport and --config."""
    return functools.reduce(lambda made, option: option(made), reversed(_OPTIONS), command)


def reads_contract(command: F) -> F:
    """Adds --contract."""
    return _CONTRACT(command)


def prints_json(command: F) -> F:
    """Adds --json."""
    return _JSON(command)


def logs_records(command: F) -> F:
    """Adds --log-format and --log-level."""
    return functools.reduce(lambda made, option: option(made), reversed(_LOGS), command)


#: The error of commands that need an outbox.
NO_OUTBOX = (
    "no outbox is set: give --outbox URL, set PROTOFLOW_OUTBOX, or write `outbox` in the file of "
    "settings"
)


def config_of(
    transport: str | None, config_file: str | None, *, outbox: str | None = None
) -> Config:
    """Returns the settings as a service reads them; options override the environment.

    Raises:
        ConfigError: with every mistake.
    """
    given: dict[str, Any] = {"transport": transport} if transport else {}
    given |= {"outbox": outbox} if outbox else {}
    return Config(file=config_file or _project_file(), **given)


def broker_of(transport: str | None, config_file: str | None) -> Config:
    """Like `config_of`, for commands that need a broker outside of their process.

    Raises:
        ConfigError: no transport is set, or it only exists in the memory of one process.
    """
    config = config_of(transport, config_file)
    if config.origin("transport") == "built in":
        raise ConfigError(
            "no transport is set: give --transport URL or --config FILE, set PROTOFLOW_TRANSPORT,"
            " or name a file of settings in pyproject.toml: [tool.protoflow] config",
            code=NO_TRANSPORT,
        )
    if any(url.scheme == "memory" for url in config.urls):
        raise ConfigError(
            "memory:// exists in its process and cannot be reached from another", code=NO_TRANSPORT
        )
    return config


def export(transport: str | None, config_file: str | None) -> None:
    """Passes options to a service in a module, through the environment."""
    if transport:
        os.environ["PROTOFLOW_TRANSPORT"] = transport
    if file := config_file or _project_file():
        os.environ["PROTOFLOW_CONFIG"] = file


def file_of(config_file: str | None) -> Path | None:
    """Returns the file of settings that `config_of` reads; None: there is none."""
    file = config_file or _project_file() or os.environ.get("PROTOFLOW_CONFIG")
    return Path(file) if file else None


def _project_file() -> str | None:
    """Returns the settings that `[tool.protoflow] config` names, if the environment names none."""
    found: str | None = project_settings().get("config")
    return None if os.environ.get("PROTOFLOW_CONFIG") else found


def project_settings(directory: Path = Path()) -> dict[str, Any]:
    """Returns `[tool.protoflow]` of pyproject.toml in a directory. Raises ConfigError."""
    file = directory / "pyproject.toml"
    if not file.exists():
        return {}
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"pyproject.toml cannot be read: {error}", code=PROJECT) from None
    tool = content.get("tool", {})
    found = tool.get("protoflow", {}) if isinstance(tool, dict) else None
    if not isinstance(found, dict):
        raise ConfigError(
            "pyproject.toml: tool.protoflow is not a table; write [tool.protoflow]", code=PROJECT
        )
    if problems := list(_problems(found)):
        raise ConfigError(problems, code=PROJECT)
    return found


def _problems(table: dict[str, Any]) -> Iterator[str]:
    for name, value in table.items():
        if name not in _KNOWN:
            known = ", ".join(_KNOWN)
            yield f"pyproject.toml: [tool.protoflow] has no {name}; known: {known}"
        elif not isinstance(value, _KNOWN[name]):
            form = "a string" if _KNOWN[name] is str else "a table"
            yield f"pyproject.toml: [tool.protoflow] {name} is {value!r}; write {form}"
    generate = table.get("generate")
    for name in ("out", "package"):  # these keys are a table for another command
        value = generate.get(name, "") if isinstance(generate, dict) else ""
        if not isinstance(value, str):
            yield f"pyproject.toml: [tool.protoflow.generate] {name} is {value!r}; write a string"


def use_working_directory() -> None:
    """Adds the working directory and the output of `generate` to `sys.path`."""
    out = project_settings().get("generate", {})
    folders = ["", str(out.get("out", "gen"))] if not out.get("package") else [""]
    for folder in reversed(folders):
        path = str(Path(folder).resolve())
        if Path(path).is_dir() and path not in sys.path:
            sys.path.insert(0, path)
