"""A process that starts brokers, keeps them, and stops them when nobody needs them.

A test session holds the keeper's standard input: however the session ends, the keeper
reads the end of it and stops its brokers. `python -m tests.brokers up` makes one that
lives on until `down`, with a state file in the user's cache, locked while it lives.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from tests.brokers.base import BrokerUnavailable, RunningBroker

_ROOT = Path(__file__).parents[2]
_DONE = "done"
_processes: list[subprocess.Popen[str]] = []


def start(
    names: Sequence[str], *, stay: bool = False
) -> dict[str, RunningBroker | BrokerUnavailable]:
    """Starts a keeper of these brokers, for as long as this process lives or, with `stay`,
    until `stop`; what became of each broker."""
    command = [sys.executable, "-m", "tests.brokers", "keep", *names, *(["--stay"] if stay else [])]
    process = subprocess.Popen(
        command,
        cwd=_ROOT,
        env=os.environ | {"PYTHONPATH": f"{_ROOT}{os.pathsep}{_ROOT / 'runtime'}"},
        stdin=subprocess.DEVNULL if stay else subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if not stay:
        _processes.append(process)
    assert process.stdout is not None
    with process.stdout:
        found = dict(_read(process.stdout))
    ended = BrokerUnavailable("the keeper of test brokers ended; its error is on stderr")
    return {name: found.get(name, ended) for name in names}


def _read(lines: IO[str]) -> Iterator[tuple[str, RunningBroker | BrokerUnavailable]]:
    for line in lines:
        if line.strip() == _DONE:
            return
        report = json.loads(line)
        if error := report.get("error"):
            yield report["name"], BrokerUnavailable(error)
        else:
            yield report["name"], RunningBroker(**report)


@atexit.register
def _release() -> None:
    for process in _processes:
        assert process.stdin is not None
        process.stdin.close()
    for process in _processes:
        process.wait(60)


def state() -> dict[str, str]:
    """The URLs of brokers that are kept until `stop`."""
    try:
        brokers: dict[str, str] = json.loads(_state_file().read_text())["brokers"]
    except (OSError, ValueError, KeyError):
        return {}
    return brokers


def stop() -> bool:
    """Ends the keeper that stays; False if there is none."""
    path = _state_file()
    try:
        with path.open() as file:
            if _lock(file):  # nobody holds it: the keeper is gone
                path.unlink()
                return False
            os.kill(json.load(file)["pid"], signal.SIGTERM)
    except FileNotFoundError:
        return False
    deadline = time.monotonic() + 60
    while path.exists():
        if time.monotonic() > deadline:
            raise BrokerUnavailable("the keeper of test brokers does not end")
        time.sleep(0.05)
    return True


def keep(names: Sequence[str], *, stay: bool) -> None:
    """The keeper itself: reports each broker on standard output, then waits."""
    from tests.brokers import kind

    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the session
    with (
        tempfile.TemporaryDirectory(
            prefix="protoflow-brokers-", ignore_cleanup_errors=True
        ) as directory,
        contextlib.ExitStack() as stack,
    ):
        root = Path(directory)
        root.chmod(0o755)  # brokers may run as a user of their own

        def bring_up(name: str) -> dict[str, Any]:
            try:
                broker = kind(name)
                running = broker.start(root / name)
            except Exception as error:
                return {"name": name, "error": f"{error or type(error).__name__}"}
            stack.callback(broker.stop, running)
            fields = ("name", "url", "source", "version")
            return {field: getattr(running, field) for field in fields}

        with ThreadPoolExecutor() as pool:
            reports = [*pool.map(bring_up, names)]
        if stay:
            stack.enter_context(_state({r["name"]: r["url"] for r in reports if "url" in r}))
        print(*map(json.dumps, reports), _DONE, sep="\n", flush=True)
        if stay:
            while True:
                signal.pause()
        sys.stdin.read()


@contextlib.contextmanager
def _state(brokers: dict[str, str]) -> Iterator[None]:
    path = _state_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        _lock(file)
        json.dump({"pid": os.getpid(), "brokers": brokers}, file)
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _state_file() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "protoflow" / "test-brokers.json"


def _exit(*_: object) -> None:
    sys.exit(0)
