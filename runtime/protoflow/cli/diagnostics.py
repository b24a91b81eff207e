"""The rows of `check` and `doctor`; each one checks one aspect."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import click

from protoflow import __version__
from protoflow.cli import output
from protoflow.cli.exits import ExitCode
from protoflow.cli.generate import output as generated
from protoflow.cli.generate import project
from protoflow.counted import counted
from protoflow.error_codes import INSTALLATION, PROJECT
from protoflow.errors import MissingExtraError, ProtoflowError

_OLDEST = (3, 11)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a check.

    Attributes:
        check: the aspect.
        ok: whether it is correct; None if it was not checked.
        note: the finding, or the fix.
    """

    check: str
    ok: bool | None
    note: str


def examined(check: str, examine: Callable[[], str]) -> Result:
    """Runs one check; an error of Protoflow becomes its result."""
    try:
        return Result(check=check, ok=True, note=examine())
    except MissingExtraError as error:
        return Result(check=check, ok=None, note=str(error))
    except ProtoflowError as error:
        return Result(check=check, ok=False, note="; ".join(str(error).splitlines()))


def report(results: Iterable[Result], *, as_json: bool) -> ExitCode:
    """Prints the results; returns 1 if one of them is not correct."""
    results = list(results)
    if as_json:
        output.as_json([{"check": one.check, "ok": one.ok, "note": one.note} for one in results])
    else:
        for one in results:
            mark = {True: "ok  ", False: "FAIL", None: "-   "}[one.ok]
            click.echo(f"{mark} {one.check}: {one.note}")
    return ExitCode.FINDING if any(one.ok is False for one in results) else ExitCode.DONE


def python() -> str:
    """Checks the version of Python."""
    if sys.version_info < _OLDEST:
        raise ProtoflowError(
            f"Python {platform.python_version()} is too old; use 3.11 or later", code=INSTALLATION
        )
    return platform.python_version()


def versions() -> str:
    """Checks that plugin and runtime have the same version, as parts of one distribution."""
    try:
        installed = metadata.version("protoc-gen-protoflow")
    except metadata.PackageNotFoundError:
        return f"runtime {__version__}, not installed as a distribution"
    if installed != __version__:
        raise ProtoflowError(
            f"the installed distribution is {installed}, the imported runtime is {__version__};"
            " one of them comes from elsewhere: look at PYTHONPATH",
            code=INSTALLATION,
        )
    return installed


def up_to_date() -> str:
    """Checks that the generated modules match the .proto files."""
    found = project.load(Path.cwd())
    difference = generated.difference(found, Path.cwd())
    stale = [*difference.changed, *difference.orphans]
    if stale:
        more = f" and {len(stale) - 1} more" if len(stale) > 1 else ""
        raise ProtoflowError(
            f"{found.out / stale[0]}{more} is stale; run: protoflow generate", code=PROJECT
        )
    return f"{counted(difference.unchanged, 'file')} in {found.out}"
