"""`protoflow breaking`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from protoflow.breaking.change import Change
from protoflow.breaking.compare import RETENTION, compare
from protoflow.breaking.deployment import deployment
from protoflow.breaking.verdict import Verdict
from protoflow.cli import output, settings
from protoflow.cli.breaking import sources
from protoflow.cli.breaking.contracts import contract
from protoflow.cli.exits import ExitCode
from protoflow.cli.values import Finite
from protoflow.config import Config

_SHOWN = 3


@click.command("breaking")
@click.option(
    "--against", required=True, metavar="REF|DIR|IMAGE",
    help="The version that runs: a git ref, a directory of .proto files, or a descriptor image.",
)  # fmt: skip
@settings.connects
@click.option(
    "--against-config", metavar="FILE",
    help="Settings of the version that runs; by default the same file at REF or in DIR.",
)  # fmt: skip
@click.option(
    "--retention", type=Finite(min=0), default=RETENTION, metavar="SECONDS",
    help="Time for which the broker keeps messages; by default 604800, seven days.",
)  # fmt: skip
@settings.prints_json
@click.pass_context
def command(
    ctx: click.Context,
    /,
    against: str,
    transport: str | None,
    config_file: str | None,
    against_config: str | None,
    retention: float,
    as_json: bool,
) -> None:
    """Show how changes of the .proto files affect unfinished messages, and how to roll it out.

    Compares the .proto files that `generate` takes with the running version. Each version is read
    with its own settings, and no broker is needed. Each change has a verdict: safe, consumers
    first, producers first,
    drain, loses order, or loses messages. It may depend on the transport.

    Exits with 1 if a change is not safe. `buf breaking` checks the payloads; use both.
    """
    config = settings.config_of(transport, config_file)
    old = sources.source(against, config_file)
    earlier = _config_of(old, transport, against_config) or config
    scheme = "" if config.origin("transport") == "built in" else config.url.scheme
    found = compare(
        contract(old, earlier), contract(sources.working_directory(), config), scheme, retention
    )
    if as_json:
        output.as_json(_report(found, against, scheme))
    else:
        _print(found, against, scheme)
    safe = all(one.consequence(scheme).verdict is Verdict.SAFE for one in found)
    ctx.exit(ExitCode.DONE if safe else ExitCode.FINDING)


def _config_of(
    old: sources.Source, transport: str | None, against_config: str | None
) -> Config | None:
    if against_config is not None:
        return settings.config_of(transport, against_config)
    if old.settings is None:
        return None
    with tempfile.TemporaryDirectory(prefix="protoflow-") as scratch:
        file = Path(scratch) / "protoflow.toml"
        file.write_text(old.settings, encoding="utf-8")
        return settings.config_of(transport, str(file))


def _report(found: list[Change], against: str, scheme: str) -> dict[str, Any]:
    verdicts = [one.consequence(scheme).verdict for one in found]
    return {
        "against": against,
        "transport": scheme or None,
        "verdict": max(verdicts, key=lambda one: one.severity, default=Verdict.SAFE),
        "rollouts": [
            {"rollout": part.rollout, "changes": part.kinds, "steps": part.rollout.steps}
            for part in deployment(found, scheme)
        ],
        "changes": [_row(one, scheme) for one in found],
    }


def _row(one: Change, scheme: str) -> dict[str, Any]:
    verdict, effect, rollout = one.consequence(scheme)
    return {
        "verdict": verdict,
        "change": one.kind,
        "title": one.rule.title,
        "subjects": list(one.subjects),
        "old": one.old,
        "new": one.new,
        "place": one.place or None,
        "effect": effect,
        "rollout": rollout,
    }


def _print(found: list[Change], against: str, scheme: str) -> None:
    rows = [
        {
            "verdict": one.consequence(scheme).verdict,
            "place": one.place or "settings",
            "what": _subjects(one.subjects),
            "change": f"{one.kind}: {one.old} -> {one.new}",
        }
        for one in found
    ]
    output.table(
        rows,
        ("verdict", "place", "what", "change"),
        empty=f"nothing changes for unfinished messages since {against}",
    )
    _print_rollouts(found, scheme)


def _subjects(subjects: tuple[str, ...]) -> str:
    more = len(subjects) - _SHOWN
    return ", ".join(subjects[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _print_rollouts(found: list[Change], scheme: str) -> None:
    """Prints the consequences, and the steps that avoid them."""
    effects = {
        one.kind: effect
        for one in found
        for verdict, effect, _ in [one.consequence(scheme)]
        if verdict is not Verdict.SAFE
    }
    for part in deployment(found, scheme):
        click.echo(f"\nrollout: {part.rollout}")
        for kind in part.kinds:
            click.echo(f"  {kind}: {effects[kind]}")
        for number, step in enumerate(part.rollout.steps, 1):
            click.echo(f"  {number}. {step}")
