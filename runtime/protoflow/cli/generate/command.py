"""`protoflow generate`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from protoflow.cli.exits import ExitCode
from protoflow.cli.generate import output, project, protoc
from protoflow.counted import counted
from protoflow.errors import ConfigError

#: Seconds between two checks of the .proto files.
_WATCH_INTERVAL = 0.5


@click.command("generate")
@click.argument("paths", nargs=-1)
@click.option("-I", "--root", "roots", multiple=True, help="Directory that imports start from.")
@click.option("--out", help="Output directory; gen by default.")
@click.option("--package", help="Import name of the output directory, such as shop.gen.")
@click.option("--grpc/--no-grpc", default=None, help="Generate gRPC stubs too.")
@click.option("--watch", is_flag=True, help="Generate again whenever a .proto file changes.")
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if a file is out of date.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="Print files only, no versions.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    watch: bool,
    check: bool,
    as_json: bool,
    quiet: bool,
    **arguments: Any,
) -> None:
    """Generate _pb2, _pb2.pyi and _protoflow modules from .proto files.

    PATHS are files or directories, by default all .proto files of the roots. The roots come from
    -I, [tool.protoflow.generate] in pyproject.toml, buf.yaml, or are proto/.
    """
    if watch and (check or as_json):
        raise click.UsageError("--watch goes neither with --check nor with --json")
    if not quiet:
        click.echo(protoc.versions(), err=True)
    if watch:
        _watch(arguments)
        return
    ctx.exit(_once(arguments, check=check, as_json=as_json))


def _once(arguments: dict[str, Any], *, check: bool, as_json: bool) -> ExitCode:
    directory = Path.cwd()
    found_project = project.load(directory, **arguments)
    found = output.difference(found_project, directory)
    if not check:
        output.write(found, directory / found_project.out)
    if as_json:
        report = {
            "out": str(found_project.out),
            "stale" if check else "written": sorted(found.changed),
            "orphans": found.orphans,
            "unchanged": found.unchanged,
        }
        click.echo(json.dumps(report))
    else:
        _print(found_project, found, check=check)
    stale = bool(found.changed or found.orphans)
    return ExitCode.FINDING if check and stale else ExitCode.DONE


def _print(found_project: project.Project, found: output.Difference, *, check: bool) -> None:
    for name in sorted(found.changed):
        click.echo(f"{'stale' if check else 'wrote'}  {found_project.out / name}")
    for name in found.orphans:
        click.echo(f"orphan {found_project.out / name}: no .proto file generates it; delete it")
    if not found.changed:
        verb = "is" if found.unchanged == 1 else "are"
        click.echo(f"{counted(found.unchanged, 'file')} {verb} up to date")
    elif check:
        click.echo("run: protoflow generate", err=True)


def _watch(arguments: dict[str, Any]) -> None:
    seen: dict[Path, float] = {}
    while True:
        now = _times(arguments)
        if now != seen:
            seen = now
            try:
                _once(arguments, check=False, as_json=False)
            except ConfigError as error:
                for problem in error.problems:
                    click.echo(f"error: {problem}", err=True)
            sys.stdout.flush()
        time.sleep(_WATCH_INTERVAL)


def _times(arguments: dict[str, Any]) -> dict[Path, float]:
    """Returns the modification times of .proto files. An error is left for `_once` to report."""
    try:
        found = project.load(Path.cwd(), **arguments)
    except ConfigError:
        return {Path(): time.monotonic()} if Path("proto").exists() else {}
    places = [root / name for root in found.roots for name in found.files]
    return {place: place.stat().st_mtime for place in places if place.exists()}
