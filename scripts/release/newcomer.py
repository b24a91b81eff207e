"""Walks from an empty environment to the first handled message and the first dashboard.

python scripts/release/newcomer.py dist/*.whl
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path

#: What a newcomer types in an active environment. Before the first release, the wheel is a file.
LINES = (
    "pip install 'protoc-gen-protoflow[cli,codegen,http]'",
    "protoflow init shop --start",
)
#: From the first line to a handled message, in seconds.
LIMIT = 300.0


def walk(wheel: Path) -> Iterator[str]:
    """Types the lines, and yields what was seen after how many seconds.

    Raises:
        AssertionError: a message was not handled, or not in time.
    """
    with tempfile.TemporaryDirectory(prefix="protoflow-newcomer-") as name:
        directory = Path(name)
        venv.create(directory / "venv", with_pip=True, symlinks=True)
        started = time.monotonic()

        def seconds() -> str:
            return f"{time.monotonic() - started:5.1f} s"

        install, start = LINES
        _typed(install.replace("protoc-gen-protoflow[", f"{wheel.resolve()}["), directory)
        yield f"{seconds()}  $ {install}"
        port = _free_port()
        yield f"{seconds()}  $ {start}"
        running = subprocess.Popen(
            [*_shell(f"exec {start} --http {port}")], cwd=directory, env=_environment(directory),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            assert running.stdout is not None
            seen = []
            for line in running.stdout:
                seen.append(line)
                if "billed" in line:
                    break
            assert "billed A-1: 1990 cents" in seen[-1], "".join(seen)
            took = time.monotonic() - started
            yield f"{seconds()}  {seen[-1].partition(' handler=')[0]}"
            yield f"{seconds()}  dashboard: {_dashboard(port)}"
            assert took < LIMIT, f"the first handled message took {took:.0f} s"
        finally:
            running.terminate()
            running.communicate(timeout=60)


def _typed(line: str, directory: Path) -> None:
    done = subprocess.run(
        _shell(line), cwd=directory, env=_environment(directory),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def _shell(line: str) -> list[str]:
    return ["sh", "-c", line]


def _environment(directory: Path) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "PROTOFLOW_", "VIRTUAL_ENV"))
    }
    return {**kept, "PATH": f"{directory / 'venv' / 'bin'}{os.pathsep}{kept['PATH']}"}


def _dashboard(port: int) -> str:
    """Returns what the dashboard shows of the handler, after its page was read."""
    base = f"http://127.0.0.1:{port}"
    with urllib.request.urlopen(f"{base}/", timeout=30) as response:
        page = response.read().decode()
    assert "<html" in page, page
    with urllib.request.urlopen(f"{base}/api/handlers", timeout=30) as response:
        (handler,) = json.load(response)
    handled = handler["stats"]["counters"]["handled"]
    assert handled == 1, handler
    return f"{base}/, {handler['name']} handled {handled} message"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    for row in walk(Path(sys.argv[1])):
        print(row, flush=True)
