"""Processes that a subject starts beside itself, such as its publisher."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def child(module: str, *arguments: object, talks: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A program of ours, killed on leaving.

    Args:
        module: the program.
        arguments: its command line.
        talks: its input and output are pipes.
    """
    pipe = subprocess.PIPE if talks else subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)], stdin=pipe, stdout=pipe, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def said(stream: IO[str] | None) -> str:
    """The next line that a talking child says; an error when it ended instead."""
    assert stream is not None
    line = stream.readline().strip()
    if not line:
        raise RuntimeError("a process beside the subject ended early")
    return line
