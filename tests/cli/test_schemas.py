"""Every command that prints JSON has a schema, and keeps to it."""

from __future__ import annotations

import json

import pytest
from protoflow.cli.commands import COMMANDS

from tests.cli import schemas
from tests.cli.conftest import Project

#: Commands that print no JSON, and why; every other one must have --json.
WITHOUT = {
    "init": "it writes files",
    "run": "it goes on until it is stopped; --log-format json",
    "relay": "it goes on until it is stopped; --log-format json",
    "dev": "it goes on until it is stopped; --log-format json",
    "dashboard": "it serves pages until it is stopped",
    "dlq-export": "it writes JSON to a file, which has a schema",
    "export-k8s": "it prints YAML for kubectl",
    "export-keda": "it prints YAML for kubectl",
    "export-systemd": "it prints a unit of systemd",
}
#: Commands that act on a running service: tests/cli/test_control.py runs them.
CONTROL = {"pause", "resume", "drain"}
#: It needs a schema registry: tests/schema_registry/test_command.py runs it.
REGISTRY = {"schemas"}
#: One run of each other command, in order, on a project with a dead letter ID. Tests of single
#: commands validate what these print as well: `Project` does.
RUNS = [
    ["generate", "--json"],
    ["generate", "--check", "--json"],
    ["publish", "OrderPlaced", '{"orderId": "A-1", "cents": 5}', "--count", "2", "--json"],
    ["tail", "OrderPlaced", "--from", "earliest", "--no-follow", "--json"],
    ["lag", "--json"],
    [
        "replay",
        "OrderPlaced",
        "--handler",
        "app:Billing",
        "--from",
        "earliest",
        "--shadow",
        "--json",
    ],
    ["dlq", "list", "--json"],
    ["dlq", "show", "ID", "--payload", "--json"],
    ["dlq", "show", "ID", "--json"],
    ["dlq", "replay", "ID", "--yes", "--json"],
    ["dlq", "purge", "--all", "--yes", "--json"],
    ["outbox", "list", "--outbox", "sqlite:///app.db", "--json"],
    ["outbox", "retry", "--outbox", "sqlite:///app.db", "--all", "--json"],
    ["outbox", "purge", "--outbox", "sqlite:///app.db", "--all", "--yes", "--json"],
    ["why", "ID", "--json"],
    ["describe", "--json"],
    ["check", "--json"],
    ["asyncapi", "--json"],
    ["breaking", "--against", "proto", "--json"],
    ["topology", "plan", "--json"],
    ["doctor", "--json"],
    ["explain", "PF305", "--json"],
    ["config", "--json"],
    ["version", "--json"],
]


def test_every_command_has_json_and_every_json_a_schema() -> None:
    names = {name for name, _ in schemas.commands()}
    lacking = names - schemas.printing_json() - set(WITHOUT)
    assert not lacking, f"{lacking}: add --json, or say in WITHOUT why it has none"
    for name in schemas.printing_json() | schemas.FILES:
        schemas.validator(name)
    files = {file.stem for file in schemas.FOLDER.iterdir()}
    assert files == schemas.printing_json() | schemas.FILES, "a schema without its command"
    run = {schemas.name_of(arguments) for arguments in RUNS}
    assert run == schemas.printing_json() - CONTROL - REGISTRY, "add a run to RUNS"
    assert {name.partition("-")[0] for name in names} == set(COMMANDS)


@pytest.mark.timeout(180)
def test_what_commands_print_keeps_to_the_schemas(shop: Project) -> None:
    from tests.cli.test_why import FAIL

    shop.environ |= {"PROTOFLOW_JOURNAL": "journal.db", "PROTOFLOW_JOURNAL_SUCCESSES": "true"}
    id = shop.python(FAIL).strip()
    for payloads in ([], ["--payloads"]):
        file = f"dead{len(payloads)}.jsonl"
        assert shop("dlq", "export", file, *payloads).code == 0
        text = (shop.folder / file).read_text()
        assert json.loads(text)["id"] == id
        schemas.validate(["dlq", "export"], text)
    runs = [[id if one == "ID" else one for one in arguments] for arguments in RUNS]
    for arguments, line in zip(
        runs, shop.python(PROGRAM.format(runs=runs)).splitlines(), strict=True
    ):
        code, out = json.loads(line)
        assert code in (0, 1), arguments
        assert out, arguments
        schemas.validate(arguments, out)


#: Runs commands in one process, and prints the exit code and the output of each.
PROGRAM = """
import contextlib, io, json
from protoflow.cli.app import main

for arguments in {runs}:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(arguments)
    print(json.dumps([code, out.getvalue()]))
"""
