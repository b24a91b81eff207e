"""Windows and macOS, as far as they can be simulated here: what they lack is taken away.

`docs/compatibility.md` says what was tested in this way only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from tests.acceptance.contract import program_environment

#: Takes away what Python on Windows does not have.
WINDOWS = """
import asyncio, os, signal, socket, sys
for module in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[module] = None
pair, family = socket.socketpair, socket.AF_UNIX
socket.socketpair = lambda: pair(family)  # as loops need one here
for where, names in {
    os: ("getuid", "fork", "uname", "sysconf", "O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "pread"),
    signal: ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2"),
    socket: ("AF_UNIX",),
}.items():
    for name in names:
        delattr(where, name)
def refused(*_arguments, **_keywords):
    raise NotImplementedError
loop = asyncio.SelectorEventLoop
loop.add_signal_handler = loop.remove_signal_handler = refused
loop.create_unix_server = loop.create_unix_connection = refused
real_open = open
def no_proc(path, *arguments, **keywords):
    if str(path).startswith("/proc/"):
        raise FileNotFoundError(path)
    return real_open(path, *arguments, **keywords)
import builtins, io
builtins.open = io.open = no_proc
"""
#: Takes away what macOS does not have, and answers as macOS does.
MACOS = """
import builtins, io, os
real_open = open
def no_proc(path, *arguments, **keywords):
    if str(path).startswith("/proc/"):
        raise FileNotFoundError(path)
    return real_open(path, *arguments, **keywords)
builtins.open = io.open = no_proc
os.uname = lambda: os.uname_result(("Darwin", "mac", "25", "25", "arm64"))
"""
SERVICE = """
import asyncio, os, signal, sys
import protoflow
from protoflow import Config, Service
from protoflow.observability import resources
from suite.v1.suite_pb2 import Task
from suite.v1.suite_protoflow import SuiteEventProducer, WorkHandler

class Work(WorkHandler):
    async def work(self, message, context, /):
        print("handled", message.number, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

async def main():
    url = f"sqlite:///{sys.argv[1]}"
    async with protoflow.connect(url) as publisher:
        await SuiteEventProducer(publisher).publish_task(Task(number=7))
    service = Service(Config(transport=url, environ={}))
    service.register(Work())
    await service.run()
    print("drained")

asyncio.run(main())
print("memory", resources._memory())
"""


def run(system: str, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a program as if on another system."""
    return subprocess.run(
        [sys.executable, "-c", system + textwrap.dedent(program), *map(str, arguments)],
        capture_output=True, text=True, env=program_environment(), timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("system", [WINDOWS, MACOS], ids=["windows", "macos"])
def test_a_service_handles_and_drains_on_sqlite(system: str, tmp_path: os.PathLike[str]) -> None:
    done = run(system, SERVICE, os.path.join(tmp_path, "queue.db"))
    assert done.returncode == 0, done.stderr
    handled, drained, memory = done.stdout.splitlines()
    assert (handled, drained) == ("handled 7", "drained")
    # Windows reports no memory; macOS reports bytes, other systems KiB.
    size = int(memory.split()[1])
    assert size == 0 if system is WINDOWS else 1000 < size < 1_000_000


IMPORTS = """
import importlib, pkgutil
import protoc_gen_protoflow, protoflow
failed = []
for package in (protoflow, protoc_gen_protoflow):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.", failed.append):
        if module.name.startswith(LEFT_OUT):
            continue
        try:
            importlib.import_module(module.name)
        except Exception as error:
            failed.append(f"{module.name}: {error!r}")
print(*failed, sep="\\n")
"""


def test_every_module_but_those_of_files_is_imported_on_windows() -> None:
    left_out = (
        *("protoflow.transports.file.", "protoflow.testing.transports."),
        *("protoflow.cli.__main__", "protoc_gen_protoflow.__main__"),
    )
    done = run(WINDOWS, f"LEFT_OUT = {left_out!r}\n{IMPORTS}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_files_are_refused_on_windows_with_the_way_out() -> None:
    program = """
    import protoflow
    try:
        protoflow.connect("file:///tmp/never")
    except protoflow.ProtoflowError as error:
        print(error)
    """
    done = run(WINDOWS, program)
    assert done.returncode == 0, done.stderr
    assert (
        "file:// locks with flock, which this system does not have; use sqlite:///" in done.stdout
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["run", "app", "--workers", "2"], "cannot ask a process to drain"),
        (["--help"], ""),
    ],
)
def test_the_command_on_windows(arguments: list[str], reason: str) -> None:
    program = "from protoflow.cli.app import main\nimport sys\nsys.exit(main(sys.argv[1:]))"
    done = run(WINDOWS, program, *arguments)
    assert done.returncode == (2 if reason else 0), done.stderr
    assert "Traceback" not in done.stderr
    assert reason in done.stderr
