"""A short run of the fuzzer; `make fuzz` has the long one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fuzz import decoders
from tests.fuzz.generate import TOPICS, Generator
from tests.fuzz.intake import Intake, Report
from tests.fuzz.mutations import MUTATIONS, RUNTIME, Mutation


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_message_hurts_intake(seed: int) -> None:
    report = Report()
    await Intake(seed, report).run(1000)
    assert not report.findings, "\n".join(report.lines())
    assert report.runs > 200, "nearly nothing reached a handler"


def test_no_bytes_hurt_a_decoder() -> None:
    report = Report()
    decoders.run(1, 3000, report)
    assert not report.findings, "\n".join(report.lines())


def test_a_seed_gives_the_same_messages_again() -> None:
    for number, topic in enumerate(TOPICS):
        one, two = Generator(7, number, "g"), Generator(7, number, "g")
        for _ in range(50):
            a, b = one.message(topic, 1), two.message(topic, 1)
            assert (a.id, a.payload, a.key, a.metadata) == (b.id, b.payload, b.key, b.metadata)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_every_fix_can_be_taken_out_to_try_the_fuzzer(mutation: Mutation, tmp_path: Path) -> None:
    """That it is found then takes seconds each: `make fuzz ARGS=--mutations`."""
    for file in {file for file, _, _ in mutation.changes}:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(RUNTIME / file, tmp_path / file)
    mutation.apply(tmp_path)
    for file, _, _ in mutation.changes:
        compile((tmp_path / file).read_text(), file, "exec")
