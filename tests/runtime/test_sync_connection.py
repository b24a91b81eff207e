"""`connect_sync` is safe from any thread, after a fork, and at the end of the process."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from protoflow import connect_sync
from protoflow.connection import Connection
from protoflow.errors import ConfigError, ConnectionFailedError, ProtoflowError

from tests.outside import outside

ROOT = Path(__file__).parents[2]


def stored(file: Path) -> int:
    """The messages in a file of the SQLite transport."""
    with sqlite3.connect(file) as database:
        (count,) = database.execute("SELECT count(*) FROM protoflow_messages").fetchone()
    database.close()
    return int(count)


def threads() -> Counter[str]:
    """The running threads by name."""
    return Counter(thread.name for thread in threading.enumerate())


def program(text: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a program that must end by itself; unclosed things and lost coroutines are errors."""
    done = subprocess.run(
        [sys.executable, "-Wd", "-c", textwrap.dedent(text), *map(str, arguments)],
        capture_output=True, text=True, timeout=100,
        env={**outside(), "PYTHONPATH": f"{ROOT / 'runtime'}", **options},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done


def test_threads_that_come_first_together_share_one_connection(tmp_path: Path) -> None:
    file = tmp_path / "shop.db"
    before = threads()["protoflow-connection"]
    gate = threading.Barrier(16)
    with connect_sync(f"sqlite:///{file}", environ={}) as entered:
        entered.close()
        shared = connect_sync(f"sqlite:///{file}", environ={})

        def publish(number: int) -> str:
            gate.wait()
            return shared.publish_data("orders", "/shop", {"number": number})

        with ThreadPoolExecutor(16) as pool:
            ids = list(pool.map(publish, range(16)))
    assert len(set(ids)) == 16
    assert threads()["protoflow-connection"] == before + 1
    shared.close()
    assert threads()["protoflow-connection"] == before
    assert stored(file) == 16


def test_no_call_hangs_or_lies_while_other_threads_close_and_open(tmp_path: Path) -> None:
    file = tmp_path / "shop.db"
    shared = connect_sync(f"sqlite:///{file}", environ={})
    confirmed: list[int] = []
    refused: list[str] = []
    stop = threading.Event()

    def publish(number: int) -> None:
        while not stop.is_set():
            try:
                shared.publish_data("orders", "/shop", {"number": number})
                confirmed.append(number)
            except ProtoflowError as error:
                refused.append(str(error))

    workers = [threading.Thread(target=publish, args=(number,)) for number in range(6)]
    for worker in workers:
        worker.start()
    for _ in range(25):
        shared.close()
        with shared, shared:
            time.sleep(0.002)
    stop.set()
    for worker in workers:
        worker.join(20)
    assert not any(worker.is_alive() for worker in workers)
    assert confirmed
    assert refused
    # A call that the close overtakes has the error of the connection or of its transport.
    closed = ("not open", "sqlite: the transport is closed")
    assert [text for text in refused if not text.startswith(closed)] == []
    # What was interrupted may be stored; what was confirmed is.
    assert len(confirmed) <= stored(file) <= len(confirmed) + len(refused)


def test_the_last_thread_that_leaves_closes() -> None:
    shared = connect_sync("memory://", environ={})
    with shared:
        with ThreadPoolExecutor(1) as pool, shared:
            pool.submit(shared.__enter__).result()
        shared.publish_data("orders", "/shop", 1)
    shared.publish_data("orders", "/shop", 1)  # the other thread has not left yet
    shared.__exit__(None, None, None)
    with pytest.raises(ProtoflowError, match=r"^not open"):
        shared.publish_data("orders", "/shop", 1)


def test_mistakes_are_reported_where_the_connection_is_made() -> None:
    with pytest.raises(ConfigError, match="did you mean"):
        connect_sync("kafka://127.0.0.1:1?lingr=1", environ={})


@pytest.mark.parametrize(
    "url", ["kafka://127.0.0.1:1", "amqp://127.0.0.1:1", "jetstream://127.0.0.1:1"]
)
def test_a_broker_that_is_away_is_an_error_in_every_thread(url: str) -> None:
    before = threads()
    shared = connect_sync(url, connect_timeout=0.3, environ={})

    def publish(number: int) -> type[BaseException]:
        with pytest.raises(ConnectionFailedError) as found:
            shared.publish_data("orders", "/shop", number)
        return found.type

    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(publish, range(8)))) == 8
    assert threads() == before


def test_a_broker_that_comes_back_is_used_by_the_next_call(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    shared = connect_sync(f"sqlite:///{folder}/shop.db", environ={})
    with pytest.raises(ProtoflowError):
        shared.publish_data("orders", "/shop", 1)
    folder.mkdir()
    shared.publish_data("orders", "/shop", 1)
    shared.close()
    assert stored(folder / "shop.db") == 1


def test_closing_does_not_wait_for_a_broker_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        shared = connect_sync(f"nats://127.0.0.1:{silent.getsockname()[1]}", environ={})
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(shared.publish_data, "orders", "/shop", 1)
            silent.accept()[0].close()
            shared.close()
            with pytest.raises(ProtoflowError, match=r"^not open"):
                waiting.result(10)


def test_a_call_on_its_own_event_loop_is_an_error_and_no_deadlock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = connect_sync("memory://", environ={})
    texts: list[str] = []

    async def publish(_self: object, *_messages: object) -> None:
        with pytest.raises(ProtoflowError) as found:
            shared.publish_data("orders", "/shop", 1)
        texts.append(str(found.value))

    monkeypatch.setattr(Connection, "publish", publish)
    shared.publish()
    assert len(texts) == 1
    assert "on the event loop of the connection itself" in texts[0]
    shared.close()


#: The parent publishes in many threads while it forks; all children publish, too.
FORKS = """
    import os, sys, threading, warnings
    import protoflow
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork beside threads
    shared = protoflow.connect_sync(sys.argv[1], environ={})
    early = os.fork()
    if not early:  # as below `gunicorn --preload`: nothing is open yet
        shared.publish_data("orders", "/shop", "early")
        sys.exit()
    stop = threading.Event()
    counts = [0] * 4
    def publish(place):
        while not stop.is_set():
            shared.publish_data("orders", "/shop", "parent")
            counts[place] += 1
    threads = [threading.Thread(target=publish, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    children = [early]
    for _ in range(3):
        child = os.fork()
        if not child:
            pool = [threading.Thread(target=shared.publish_data, args=("orders", "/shop", 1))
                    for _ in range(3)]
            for thread in pool:
                thread.start()
            for thread in pool:
                thread.join()
            sys.exit()
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    stop.set()
    for thread in threads:
        thread.join()
    print(sum(counts) + 1 + 3 * 3)
"""


def test_children_of_a_fork_connect_for_themselves(tmp_path: Path) -> None:
    file = tmp_path / "shop.db"
    done = program(FORKS, f"sqlite:///{file}")
    assert stored(file) == int(done.stdout)


EXIT = """
    import sys, threading
    import protoflow
    shared = protoflow.connect_sync(sys.argv[1], environ={}, journal=sys.argv[2],
                                    journal_successes=True)
    thread = threading.Thread(target=shared.publish_data, args=("orders", "/shop", 1))
    thread.start()  # not joined: the interpreter does
    shared.publish_data("orders", "/shop", 2)
    if len(sys.argv) > 3:
        raise SystemExit
"""


@pytest.mark.parametrize("how", [(), ("exit",)])
def test_a_process_that_ends_without_closing_is_quiet_and_loses_nothing(
    tmp_path: Path, how: tuple[str, ...]
) -> None:
    file = tmp_path / "shop.db"
    program(EXIT, f"sqlite:///{file}", tmp_path / "journal.db", *how)
    assert stored(file) == 2
    assert not list(tmp_path.glob("shop.db-*"))  # the file was closed


INTERRUPTED = """
    import signal
    import sys
    import protoflow
    signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs of a shell ignore it
    shared = protoflow.connect_sync(sys.argv[1], environ={}, connect_timeout=60)
    try:
        shared.publish_data("orders", "/shop", 1)
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_ctrl_c_ends_a_call_that_waits(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        running = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(INTERRUPTED),
             f"nats://127.0.0.1:{silent.getsockname()[1]}"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**outside(), "PYTHONPATH": f"{ROOT / 'runtime'}"},
        )  # fmt: skip
        peer, _ = silent.accept()
        os.kill(running.pid, signal.SIGINT)
        output, errors = running.communicate(timeout=20)
        peer.close()
    assert (output, errors, running.returncode) == ("interrupted\n", "", 0)
