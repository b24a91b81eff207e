"""Every code block of the README and the documentation is compiled, parsed or run.

A block that cannot be has a reason before it, `<!-- fragment: ... -->`. Blocks without a language
are output.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import yaml
from protoflow.cli.app import app

from tests.packaging.conftest import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"(<!-- fragment: .+ -->\n)?^```([a-z]*)\n(.*?)^```$", re.M | re.S)
#: The share of all blocks.
MOST_FRAGMENTS = 0.15


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        place: its document and line.
        language: as the fence says.
        text: what it contains.
        fragment: whether it is marked as one.
    """

    place: str
    language: str
    text: str
    fragment: bool


def blocks() -> list[Block]:
    """Every block that is code."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text()
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            language = match[2] or ("console" if match[3].startswith("$ ") else "")
            if language:
                place = f"{document.name}:{line}"
                found.append(Block(place, language, match[3], match[1] is not None))
    return found


BLOCKS = blocks()


def python(text: str) -> None:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST
    compile(text, "block", "exec", flags=flags, dont_inherit=True)


def shell(text: str) -> None:
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    for line in text.replace("\\\n", " ").splitlines():
        command(line)


def console(text: str) -> None:
    lines = [line[2:] for line in text.replace("\\\n", " ").splitlines() if line[:2] == "$ "]
    assert lines, "a block of the console has commands: lines that begin with $"
    shell("\n".join(lines))


def command(line: str) -> None:
    """Parses the arguments of `protoflow`, so that no page shows an option that is not there."""
    words = shlex.split(line, comments=True)
    if "protoflow" not in words[:1]:
        return
    stop = next((at for at, word in enumerate(words) if word in ("|", ">", "&&", ";", "&")), None)
    arguments = words[1:stop]
    group: click.Command = app
    context = click.Context(app, info_name="protoflow")
    while isinstance(group, click.Group) and arguments and arguments[0][:1] != "-":
        child = group.get_command(context, arguments[0])
        assert child is not None, f"no command {arguments[0]!r}: {line}"
        group, arguments = child, arguments[1:]
    if "--help" in arguments or "-h" in arguments:
        return
    try:
        group.make_context(group.name, [*arguments], resilient_parsing=False)
    except click.UsageError as error:
        pytest.fail(f"{line}: {error.format_message()}")


def proto(text: str, folder: Path) -> None:
    file = folder / "proto" / "shop" / "v1" / "block.proto"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "protoflow.cli", "generate"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def json_lines(text: str) -> None:
    """One value, or one a line."""
    try:
        json.loads(text)
    except json.JSONDecodeError:
        for line in text.splitlines():
            json.loads(line)


def dockerfile(text: str) -> None:
    for line in text.replace("\\\n", " ").splitlines():
        assert re.match(r"(FROM|RUN|COPY|WORKDIR|USER|ENV|HEALTHCHECK|ENTRYPOINT|CMD) |$", line)


#: How a block is read, by language; `console` has commands and their output.
READERS: dict[str, Callable[[str], object]] = {
    "python": python,
    "sh": shell,
    "console": console,
    "toml": tomllib.loads,
    "json": json_lines,
    "yaml": yaml.safe_load,
    "dockerfile": dockerfile,
}


@pytest.mark.parametrize("block", BLOCKS, ids=[block.place for block in BLOCKS])
def test_a_block_is_what_its_language_says(block: Block, tmp_path: Path) -> None:
    if block.fragment:
        return
    if block.language == "proto":
        proto(block.text, tmp_path)
        return
    assert block.language in READERS, "mark it: <!-- fragment: why nothing can run it -->"
    READERS[block.language](block.text)


def test_few_blocks_are_fragments(capsys: pytest.CaptureFixture[str]) -> None:
    fragments = Counter(block.language for block in BLOCKS if block.fragment)
    number = fragments.total()
    with capsys.disabled():
        print(f"\n{number} of {len(BLOCKS)} code blocks are fragments: {dict(fragments)}")
    assert number <= MOST_FRAGMENTS * len(BLOCKS)
