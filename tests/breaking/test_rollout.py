"""Verdicts, executed: a careless rollout does what one says, and the printed one avoids it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from protoflow.breaking.verdict import Rollout, Verdict

from tests.breaking.mutations import MUTATIONS
from tests.breaking.schedules import CAREFUL, careless
from tests.breaking.trial import KafkaTrial, SqliteTrial, Trial
from tests.brokers import url_or_skip

#: Mutations that every run rolls over Kafka; PROTOFLOW_BREAKING=long rolls all that are marked.
SOME = ("encoding", "handler of a new type", "key moved")


@pytest.mark.parametrize("name", MUTATIONS)
async def test_a_verdict_is_true(name: str, tmp_path: Path) -> None:
    await prove(SqliteTrial(MUTATIONS[name], tmp_path), "sqlite")


@pytest.mark.timeout(900)
async def test_verdicts_are_true_on_kafka() -> None:
    url = url_or_skip("kafka")
    names = [name for name, mutation in MUTATIONS.items() if mutation.kafka]
    assert len(names) >= 12
    if os.environ.get("PROTOFLOW_BREAKING") != "long":
        names = [name for name in names if name in SOME]
    turns = asyncio.Semaphore(3)

    async def prove_one(name: str) -> None:
        async with turns:
            await prove(KafkaTrial(MUTATIONS[name], url), "kafka")

    results = await asyncio.gather(*map(prove_one, names), return_exceptions=True)
    failed = {name: error for name, error in zip(names, results, strict=True) if error is not None}
    assert not failed, failed


async def prove(trial: Trial, scheme: str) -> None:
    """Rolls a mutation carelessly, and then as its verdict says."""
    verdict, rollout = trial.verdict(scheme)
    found, recovered = await trial.roll(careless)
    if verdict is Verdict.SAFE:
        assert not found, found
        return
    assert found
    if verdict in (Verdict.DRAIN, Verdict.PRODUCERS_FIRST):
        # What the new version does not find is not gone: the old one handles it.
        assert not recovered.missing, recovered
    careful, _ = await trial.roll(CAREFUL[rollout], keep=rollout is Rollout.KEEP)
    assert not careful, careful
