"""Child processes of `run`: several workers, or one that is restarted when sources change."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import click

from protoflow.transport.kit.backoff import Backoff

_POLL = 0.2
#: Seconds between a worker's checks of its parent.
_PARENT_POLL = 1.0
#: A worker that has run for this many seconds has started successfully.
_STABLE = 10.0
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_SOURCES = (".py", ".toml")
#: Windows has one way to end a process.
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


class Worker:
    """One child process.

    Attributes:
        number: its number, for people.
        process: the process; None while it waits for its next start.
        signalled: whether the process was sent a signal.
    """

    def __init__(
        self, number: int, command: Sequence[str], environ: Mapping[str, str] | None = None
    ) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.signalled = False
        self._command = command
        self._environ = {**os.environ, **(environ or {})}
        self._backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)
        self._started = self._due = 0.0

    def tick(self, now: float) -> int | None:
        """Starts the process if it is due; returns the exit code if it has just ended."""
        if self.process is None:
            if now >= self._due:
                self._started, self.signalled = now, False
                # Its own session, so that Ctrl-C in the terminal reaches only the parent.
                self.process = subprocess.Popen(  # noqa: S603
                    self._command, env=self._environ, start_new_session=True
                )
            return None
        code = self.process.poll()
        if code is not None:
            self._forget(self.process.pid)
            self.process = None
            if now - self._started > _STABLE:
                self._backoff.reset()
            self._due = now + self._backoff.next()
        return code

    def _forget(self, pid: int) -> None:
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            from protoflow.observability.application_metrics import forget_process

            forget_process(pid)

    def signal(self, number: int) -> None:
        """Sends a signal if the process runs."""
        if self.process is not None and self.process.poll() is None:
            self.signalled = True
            self.process.send_signal(number)


class Signals:
    """Counts SIGINT and SIGTERM, and passes them on to the workers."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.count = 0
        self._workers = workers
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._received)

    def _received(self, number: int, _frame: object) -> None:
        self.count += 1
        for worker in self._workers:
            worker.signal(_KILL if self.count > 2 else signal.SIGTERM)


def run_workers(
    target: str,
    count: int,
    options: Sequence[str],
    environ: Callable[[int], Mapping[str, str]] = lambda _number: {},
) -> int:
    """Runs workers until a signal drains them; restarts workers that end.

    Args:
        target: the target of each worker.
        count: the number of workers.
        options: the options of each worker's command.
        environ: returns further environment variables for a worker by its number.

    Returns:
        The exit code.
    """
    command = _command(target, options)
    workers = [Worker(number, command, environ(number)) for number in range(1, count + 1)]
    signals = Signals(workers)
    while not signals.count:
        now = time.monotonic()
        for worker in workers:
            code = worker.tick(now)
            if code == 2:
                # The configuration is invalid, so another start would also fail.
                _stop(workers)
                return code
            if code is not None:
                click.echo(f"worker {worker.number} ended with {code}; restarting it", err=True)
        time.sleep(_POLL)
    return _stop(workers)


def run_reloading(target: str, options: Sequence[str]) -> int:
    """Runs one worker; drains and restarts it when a source changes."""
    workers = [Worker(1, _command(target, options))]
    signals = Signals(workers)
    seen = _times()
    while not signals.count:
        (worker,) = workers
        if worker.process is None or worker.process.poll() is None:
            worker.tick(time.monotonic())
        now = _times()
        changed = [path for path, at in now.items() if seen.get(path) != at]
        if changed or now.keys() != seen.keys():
            seen = now
            named = f": {os.path.relpath(changed[0])}" if changed else ""
            click.echo(f"sources changed{named}; restarting", err=True)
            worker.signal(signal.SIGTERM)
            if worker.process is not None:
                worker.process.wait()
            workers[:] = [Worker(1, _command(target, options))]
        time.sleep(_POLL)
    return _stop(workers)


def follow(parent: int) -> None:
    """Drains this process when its parent has ended, because no other process would end it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_POLL)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="protoflow-parent", daemon=True).start()


def _stop(workers: Sequence[Worker]) -> int:
    """Waits for all workers to drain; returns the worst exit code."""
    for worker in workers:
        # A signal that arrives while a worker starts does not reach it.
        if not worker.signalled:
            worker.signal(signal.SIGTERM)
    codes = [worker.process.wait() for worker in workers if worker.process is not None]
    # A worker that a signal ended before it began had nothing to drain.
    codes = [0 if code == -signal.SIGTERM else code for code in codes]
    return max((code if code >= 0 else 128 - code for code in codes), default=0)


def _command(target: str, options: Sequence[str]) -> list[str]:
    # -P, so that no module in the working directory hides a library.
    command = [sys.executable, "-P", "-m", "protoflow.cli", "run", f"--parent={os.getpid()}"]
    return [*command, *options, target]


def _times() -> dict[Path, float]:
    found = {}
    for path in _sources(Path.cwd()):
        with contextlib.suppress(FileNotFoundError):  # editors may just be replacing the file
            found[path] = path.stat().st_mtime
    return found


def _sources(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith((".", "__"))
            and not (Path(parent) / name / "pyvenv.cfg").exists()
        ]
        yield from (Path(parent) / name for name in files if name.endswith(_SOURCES))
