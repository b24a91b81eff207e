"""From an empty directory to a replayed dead letter, as somebody does it who has just installed."""

from __future__ import annotations

import subprocess
import sys
import time
import tomllib
import uuid

import pytest

from tests.brokers import url_of
from tests.cli.conftest import Project


@pytest.mark.parametrize("name", ["json", "app", "click", "class", "shop_", "../shop", "Ünï"])
def test_names_that_python_cannot_import_are_refused(project: Project, name: str) -> None:
    done = project("init", name)
    assert (done.code, done.out) == (2, "")
    assert list(project.folder.iterdir()) == []


def test_a_transport_with_quotes_is_written_as_toml(project: Project) -> None:
    assert project("init", "shop", "--transport", 'kafka://a"b:1').code == 0
    found = tomllib.loads((project.folder / "shop/protoflow.toml").read_text())
    assert found == {"transport": 'kafka://a"b:1'}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("broker", ["sqlite", "kafka"])
def test_from_an_empty_directory_to_a_replayed_dead_letter(project: Project, broker: str) -> None:
    name = f"shop{uuid.uuid4().hex[:6]}"
    arguments = []
    if broker != "sqlite":
        url = url_of(broker)
        if url is None:
            pytest.skip(f"broker: {broker}")
        arguments = ["--transport", url]
    made = project("init", name, *arguments)
    assert made.code == 0, made.err
    assert made.err.splitlines()[1:] == [
        f"  cd {name}",
        "  protoflow generate",
        "  protoflow run app",
    ]
    assert project("init", name).code == 2
    project.folder /= name
    shop = project

    assert shop("generate").code == 0
    assert shop("check").code == 0
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=shop.folder, env=shop.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "1 passed" in tested.stdout, tested.stdout

    running = shop.start("run", "app")
    assert running.stdout is not None
    assert running.stdout.readline().startswith(f"1 handler on {broker}")
    (good,) = shop("publish", "OrderPlaced", '{"orderId": "A-1", "cents": 1990}').lines
    (bad,) = shop("publish", "OrderPlaced", '{"orderId": "A-2"}').lines
    assert good != bad
    deadline = time.monotonic() + 60
    while not (rows := shop("dlq", "list", "--json").json()):
        assert time.monotonic() < deadline
    assert [(row["id"], row["error"]) for row in rows] == [(bad, "order A-2 has no sum")]
    running.terminate()
    running.communicate(timeout=30)
    assert running.returncode == 0

    app = (shop.folder / "app.py").read_text()
    shop.write("app.py", app.replace("order.cents <= 0", "order.cents < 0"))
    assert shop("dlq", "replay", bad, "--yes").out == "1 matched, 1 done, 0 failed\n"
    running = shop.start("run", "app")
    while shop("lag", "--json").json()[0]["waiting"]:
        assert time.monotonic() < deadline + 60
    running.terminate()
    _, err = running.communicate(timeout=30)
    assert "billed A-2: 0 cents" in err
    assert shop("dlq", "list", "--json").json() == []


def test_a_secret_is_not_written_into_a_project(project: Project) -> None:
    done = project("init", "shop", "--transport", "amqp://ann:hunter2@127.0.0.1/")
    assert (done.code, done.out) == (2, "")
    assert "leave it out here" in done.err
    assert "hunter2" not in done.err
    assert not (project.folder / "shop").exists()
