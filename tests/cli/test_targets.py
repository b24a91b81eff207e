"""What `run` says of a target that cannot be run, and what a terminal is spared."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Project

_MODULE = """\
import sys
from app import Billing


def bad():
    raise RuntimeError("no database")


def ends():
    sys.exit(0)


async def later(): ...


class Needs(Billing):
    def __init__(self, database): ...


class Fails(Billing):
    def __init__(self):
        raise ValueError("no secret")
"""


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("made:bad", "made:bad cannot be made: RuntimeError: no database"),
        ("made:ends", "made:ends cannot be made: SystemExit: 0"),
        ("made:later", "made:later is asynchronous; name a plain function"),
        ("made:Needs", "Needs needs arguments"),
        ("made:Fails", "made:Fails cannot be made: ValueError: no secret"),
        ("ended", "module ended cannot be imported: SystemExit: 0"),
    ],
)
def test_a_target_that_fails_ends_with_2(shop: Project, target: str, said: str) -> None:
    shop.write("made.py", _MODULE)
    shop.write("ended.py", "raise SystemExit(0)\n")
    done = shop("run", target)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert "Warning" not in done.err


def test_a_table_drives_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from protoflow.cli import output

    output.table([{"id": "a\x1b[2Jb\nc"}], ("id",), empty="none")
    assert capsys.readouterr().out == "id\na\\x1b[2Jb\\nc\n"
