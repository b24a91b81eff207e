"""Commands in processes of their own, forked from one that has imported them already.

A command needs more time to import than to work. `python -m tests.cli.forks FD` serves requests of
`Forks.run` at a socket; each gets a fork, which ends as `python -m protoflow.cli` does.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
#: More bytes than the arguments and the environment of a command have.
_LARGEST = 1 << 17
_TIMEOUT = 60.0


class Forks:
    """The process that forks, started when it is first used."""

    def __init__(self) -> None:
        self._channel: socket.socket | None = None
        self._server: subprocess.Popen[bytes] | None = None

    def run(
        self, arguments: Sequence[str], cwd: Path, environ: Mapping[str, str], stdin: str
    ) -> tuple[int, str, str]:
        """The exit code of a command, its output and its errors."""
        channel = self._channel or self._start()
        order = {"arguments": arguments, "cwd": str(cwd), "environ": dict(environ)}
        with ExitStack() as stack:
            given, out, err = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3))
            given.write(stdin)
            given.seek(0)
            files = [file.fileno() for file in (given, out, err)]
            socket.send_fds(channel, [json.dumps(order).encode()], files)
            try:
                code = int(channel.recv(100))
            except TimeoutError:
                self.close()
                raise
            out.seek(0)
            err.seek(0)
            return code, out.read(), err.read()

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = os.pathsep.join([str(ROOT / "runtime"), str(ROOT)])
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.cli.forks", str(theirs.fileno())],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, process_group=0,
                env={**os.environ, "PYTHONPATH": path}, cwd=ROOT,
            )  # fmt: skip
        ours.settimeout(_TIMEOUT)
        self._channel = ours
        return ours

    def close(self) -> None:
        """Ends the process, and the command that still runs."""
        if self._channel is not None and self._server is not None:
            self._channel.close()
            os.killpg(self._server.pid, 9)
            self._server.wait()
        self._channel = self._server = None


def _serve(channel: socket.socket) -> None:
    import protoflow.cli  # put off: those who only start the server need none of it
    from protoflow.transports.built_in import BUILT_IN

    command = protoflow.cli.run  # later the name of a module
    for found in pkgutil.walk_packages(protoflow.cli.__path__, "protoflow.cli."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    for transport in BUILT_IN:
        importlib.import_module(f"protoflow.transports.{transport.module}")
    gc.freeze()
    while True:
        text, files, *_ = socket.recv_fds(channel, _LARGEST, 3)
        if not text:
            return
        pid = os.fork()
        if not pid:
            channel.close()
            _become(json.loads(text), files)
            _end(command)
        for file in files:
            os.close(file)
        _, status = os.waitpid(pid, 0)
        channel.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(order: dict[str, Any], files: Sequence[int]) -> None:
    """Makes a fork the process of a command."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environ"])
    sys.argv[1:] = order["arguments"]
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:3] = [os.getcwd(), *filter(None, path)]  # instead of ours, as `python -m` does


def _end(command: Callable[[], None]) -> None:
    """Runs a command to its end, without the time that Python takes to forget every module."""
    try:
        command()
        code: str | int | None = 0
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
