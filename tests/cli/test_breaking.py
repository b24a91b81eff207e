"""`protoflow breaking`: where versions come from, what is printed, exit codes."""

from __future__ import annotations

import contextlib
import gzip
import io
import subprocess
import sys
from pathlib import Path

import pytest
from protoflow.cli.app import main

from tests.cli.conftest import ORDERS, Done, Project

_NONE = ORDERS.replace("ORDERING_PER_KEY", "ORDERING_NONE")


class Repository(Project):
    """A project in git; the command runs in this process, which is quicker."""

    def __call__(self, *arguments: str, stdin: str = "") -> Done:
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = main(arguments)
        return Done(code, out.getvalue(), err.getvalue())


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A project whose contract is committed."""
    project = Repository(tmp_path)
    project.write("proto/shop/v1/orders.proto", ORDERS)
    project.write("protoflow.toml", 'transport = "sqlite:///shop.db"\n')
    project.write("pyproject.toml", '[tool.protoflow]\nconfig = "protoflow.toml"\n')
    _git(project, "init", "-q")
    _commit(project, "one")
    return project


def _git(project: Project, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=project.folder, check=True)


def _commit(project: Project, name: str) -> None:
    _git(project, "add", "-A")
    _git(project, "commit", "-q", "-m", name)
    _git(project, "tag", name)


def _image(project: Project, name: str, *, info: bool = True) -> Path:
    """An image of the project's files, as `buf build -o` and protoc write it."""
    file = project.folder / name
    more = ["--include_source_info"] if info else []
    subprocess.run(
        [
            sys.executable, "-m", "grpc_tools.protoc", "-Iproto", f"-I{_include()}",
            f"--descriptor_set_out={file}", "--include_imports", *more,
            "shop/v1/orders.proto",
        ],
        cwd=project.folder, check=True,
    )  # fmt: skip
    return file


def _include() -> str:
    from protoc_gen_protoflow import resources

    return str(resources.include())


def test_nothing_has_changed(repository: Repository) -> None:
    done = repository("breaking", "--against", "HEAD")
    assert done.code == 0
    assert done.out == ""
    assert "nothing changes for unfinished messages since HEAD" in done.err


def test_a_ref(repository: Repository) -> None:
    repository.write("proto/shop/v1/orders.proto", _NONE)
    done = repository("breaking", "--against", "one")
    assert done.code == 1
    assert done.lines[1].split("  ")[:2] == ["loses order", "proto/shop/v1/orders.proto:17"]
    assert "rollout: keep" in done.lines
    # Also from a folder of the repository, where the project lies.
    _commit(repository, "two")
    report = repository("breaking", "--against", "HEAD~1", "--json").json()
    assert report["verdict"] == "loses order"


def test_json(repository: Repository) -> None:
    repository.write(
        "proto/shop/v1/orders.proto", _NONE.replace('"orders.billed"', '"orders.bills"')
    )
    done = repository("breaking", "--against", "HEAD", "--json")
    assert done.code == 1
    report = done.json()
    assert report["against"] == "HEAD"
    assert report["transport"] == "sqlite"
    assert report["verdict"] == "loses order"
    assert [part["rollout"] for part in report["rollouts"]] == ["keep", "consumers first"]
    worst = report["changes"][0]
    assert worst == {
        "verdict": "loses order",
        "change": "ordering.weaker",
        "title": "the ordering becomes weaker",
        "subjects": ["shop.v1.Orders.BillOrder"],
        "old": "per_key",
        "new": "none",
        "place": "proto/shop/v1/orders.proto:17",
        "effect": worst["effect"],
        "rollout": "keep",
    }


def test_a_safe_change_exits_with_0(repository: Repository) -> None:
    repository.write(
        "proto/shop/v1/orders.proto", ORDERS.replace("max_attempts: 2", "max_attempts: 9")
    )
    done = repository("breaking", "--against", "HEAD")
    assert done.code == 0
    assert done.lines[1].startswith("safe ")
    assert len(done.lines) == 2


def test_a_directory(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> None:
    old = tmp_path_factory.mktemp("old")
    file = old / "shop/v1/orders.proto"
    file.parent.mkdir(parents=True)
    file.write_text(ORDERS.replace('topic = "orders.placed"', 'topic = "orders"'))
    done = repository("breaking", "--against", str(old))
    assert done.code == 1
    assert done.lines[1].startswith("drain ")
    assert "topic.moved: orders -> orders.placed" in done.lines[1]


@pytest.mark.parametrize("packed", [False, True])
def test_an_image(repository: Repository, packed: bool) -> None:
    file = _image(repository, "old.binpb", info=not packed)
    if packed:
        file.write_bytes(gzip.compress(file.read_bytes()))
    repository.write("proto/shop/v1/orders.proto", _NONE)
    done = repository("breaking", "--against", "old.binpb")
    assert done.code == 1
    assert done.lines[1].split("  ")[:2] == ["loses order", "proto/shop/v1/orders.proto:17"]


def test_what_is_gone_is_shown_where_it_was(repository: Repository) -> None:
    text = ORDERS.replace("service Orders", "service Refunds").replace('"billing"', '"refunds"')
    repository.write("proto/shop/v1/more.proto", text.replace("Order", "Refund"))
    _commit(repository, "more")
    (repository.folder / "proto/shop/v1/more.proto").unlink()
    report = repository("breaking", "--against", "HEAD", "--json").json()
    [gone] = [one for one in report["changes"] if one["change"] == "handler.removed"]
    assert gone["verdict"] == "producers first"
    assert gone["place"] == "HEAD:proto/shop/v1/more.proto:16"


def test_settings_of_the_ref_are_compared(repository: Repository) -> None:
    repository.write("protoflow.toml", 'transport = "sqlite:///shop.db"\nnamespace = "shop"\n')
    done = repository("breaking", "--against", "HEAD")
    assert done.code == 1
    assert done.lines[1].startswith("drain    settings  namespace  namespace.changed: none -> shop")
    repository.write("old.toml", 'transport = "sqlite:///shop.db"\nnamespace = "shop"\n')
    assert repository("breaking", "--against", "HEAD", "--against-config", "old.toml").code == 0


def test_a_verdict_depends_on_the_transport(repository: Repository) -> None:
    repository.write("proto/shop/v1/orders.proto", _NONE)
    _commit(repository, "none")
    repository.write("proto/shop/v1/orders.proto", ORDERS)
    assert repository("breaking", "--against", "none").code == 0
    done = repository("breaking", "--against", "none", "--transport", "amqp://localhost")
    assert done.code == 1
    assert done.lines[1].startswith("drain ")


def test_the_retention_counts(repository: Repository) -> None:
    longer = ORDERS.replace("max_attempts: 2, ", "max_attempts: 10, max_backoff: {seconds: 3600}, ")
    longer = longer.replace("{nanos: 1000000}", "{seconds: 3600}")
    repository.write("proto/shop/v1/orders.proto", longer)
    kafka = ("breaking", "--against", "HEAD", "--transport", "kafka://localhost")
    assert repository(*kafka).code == 0
    done = repository(*kafka, "--retention", "7200")
    assert done.code == 1
    assert done.lines[1].startswith("loses messages ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Missing option '--against'"),
        (("--against", "nowhere"), "nowhere is neither a git ref nor a directory nor a file"),
        (("--against", "--all"), "neither"),
        (("--against", "protoflow.toml"), "not an image of descriptors"),
        (("--against", "HEAD", "--retention", "-1"), "--retention"),
        (("--against", "HEAD", "--transport", "nats://localhost"), "keep order per key"),
    ],
)
def test_wrong_usage(repository: Repository, arguments: tuple[str, ...], words: str) -> None:
    done = repository("breaking", *arguments)
    assert done.code == 2
    assert words in done.err
    assert done.out == ""


def test_mistakes_in_a_version_name_it(repository: Repository) -> None:
    repository.write(
        "proto/shop/v1/orders.proto", ORDERS.replace('"orders.placed"', '"orders..placed"')
    )
    done = repository("breaking", "--against", "HEAD")
    assert done.code == 2
    assert "the new contract: shop/v1/orders.proto:5:" in done.err
    _commit(repository, "wrong")
    repository.write("proto/shop/v1/orders.proto", ORDERS)
    done = repository("breaking", "--against", "HEAD")
    assert done.code == 2
    assert "HEAD: shop/v1/orders.proto:5:" in done.err
    repository.write("proto/shop/v1/orders.proto", "message")
    done = repository("breaking", "--against", "one")
    assert done.code == 2
    assert "proto/shop/v1/orders.proto:1:" in done.err


def test_a_folder_without_git(tmp_path: Path) -> None:
    done = Repository(tmp_path)("breaking", "--against", "main")
    assert done.code == 2
    assert "main is neither a git ref" in done.err
