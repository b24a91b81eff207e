"""What `protoflow init` refuses. The whole path stands in tests/packaging/test_stranger.py."""

from __future__ import annotations

import tomllib
import urllib.request

import pytest

from tests.brokers.base import free_port
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


def test_a_secret_is_not_written_into_a_project(project: Project) -> None:
    done = project("init", "shop", "--transport", "amqp://ann:hunter2@127.0.0.1/")
    assert (done.code, done.out) == (2, "")
    assert "leave it out here" in done.err
    assert "hunter2" not in done.err
    assert not (project.folder / "shop").exists()


def test_a_first_start_handles_a_message_and_shows_the_dashboard(project: Project) -> None:
    port = str(free_port())
    running = project.start("init", "shop", "--start", "--http", port)
    assert running.stderr is not None
    lines = iter(running.stderr.readline, "")
    assert "1990 cents" in next(line for line in lines if "billed" in line)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as page:
        assert b"<title>Protoflow</title>" in page.read()
    running.terminate()
    running.communicate(timeout=30)
    assert running.returncode == 0
