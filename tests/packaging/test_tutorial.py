"""The tutorial, word for word: its files are written, its commands run, its output compared."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT

TUTORIAL = ROOT / "docs" / "getting-started.md"
#: `Write `name`` before a block that is a file; blocks of commands.
FENCE = re.compile(
    r"(?:Write `(?P<file>[^`]+)`(?:(?!```).)*?)?^```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.M | re.S,
)
ULID = re.compile(r"\b[0-9A-HJKMNP-TV-Z]{26}\b")
#: Done by whoever runs the tests: the environment that has this checkout.
INSTALLING = ("python -m venv", "pip install")


class Reader:
    """Somebody with a shell in an empty directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands: list[str] = []
        environ = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
        path = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
        self._environ = {**environ, "PATH": path, "PYTHONUNBUFFERED": "1"}

    def write(self, name: str, text: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def run(self, text: str) -> None:
        """Runs a block of commands without output."""
        for line in text.replace("\\\n", " ").splitlines():
            if line.startswith(INSTALLING):
                continue
            self.commands.append(line)
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").partition("=")
                self._environ[name] = value
            else:
                assert self._output(line, "") == ""

    def compare(self, text: str) -> None:
        """Runs each command of a block, and compares what it prints."""
        for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
            command, _, expected = part.partition("\n")
            self.commands.append(command)
            printed = self._output(command, expected)
            assert ULID.sub("ID", printed) == ULID.sub("ID", expected), command

    def _output(self, command: str, expected: str) -> str:
        """What a command prints; the service goes on, and gets Ctrl-C."""
        running = subprocess.Popen(
            ["sh", "-ec", command if "$(" in command else f"exec {command}"],
            cwd=self.folder, env=self._environ, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        late = threading.Timer(60, running.kill)
        late.start()
        try:
            assert running.stdout is not None
            lines = [running.stdout.readline() for _ in expected.splitlines()]
            if "billing.py" in command:
                running.send_signal(signal.SIGINT)
            rest, _ = running.communicate()
        finally:
            late.cancel()
            running.kill()
        assert running.returncode == (1 if "FAIL" in expected else 0), rest
        return "".join([*lines, rest])


@pytest.mark.timeout(120)
def test_every_command_of_the_tutorial_runs_and_prints_what_the_page_says(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    for block in FENCE.finditer(TUTORIAL.read_text()):
        if block["language"] == "sh":
            reader.run(block["text"])
        elif block["language"] == "console":
            reader.compare(block["text"])
        else:
            assert block["file"], f"no `Write ...` before: {block['text'][:60]}"
            reader.write(block["file"], block["text"])
    assert len(reader.commands) >= 8
    assert {"billing.py", "order.py", "proto", "gen"} <= {file.name for file in tmp_path.iterdir()}
