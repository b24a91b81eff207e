from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from protoflow import Context, RetryAfter, Skip
from protoflow.middleware import (
    Dependencies,
    JobContext,
    JobHooks,
    alerting_hooks,
    job_hooks,
    logging_hooks,
    metrics_hooks,
)

from tests.middleware.harness import NAME, nothing, put, running, worker


async def test_hooks_see_every_attempt_with_a_filled_context() -> None:
    seen: list[tuple[str, JobContext]] = []
    errors: list[BaseException] = []

    def failed(job: JobContext, error: BaseException) -> None:
        seen.append(("error", job))
        errors.append(error)

    async def done(job: JobContext) -> None:
        seen.append(("done", job))

    hooks = JobHooks(
        on_job_start=lambda job: seen.append(("start", job)), on_job_done=done, on_job_error=failed
    )

    async def flaky(_message: object, context: Context) -> None:
        await asyncio.sleep(2.0)
        if context.attempt == 1:
            raise ValueError("no")

    async with running(worker(flaky), dependencies=Dependencies(hooks=hooks)) as service:
        started = service.clock.now()
        (id,) = await put(service, "a", metadata={"tenant": "acme"})
    assert [kind for kind, _ in seen] == ["start", "error", "start", "done"]
    assert [job.retry_count for _, job in seen] == [0, 0, 1, 1]
    assert [job.duration for _, job in seen] == pytest.approx([0.0, 2.0, 0.0, 2.0])
    job = seen[-1][1]
    assert (job.handler_name, job.topic, job.message_id) == (NAME, "work", id)
    assert job.metadata["tenant"] == "acme"
    assert started < job.started_at < started + 10
    assert job.context.attempt == 2
    assert [str(error) for error in errors] == ["no"]
    assert isinstance(seen[1][1].outcome, RetryAfter)
    assert [job.outcome for kind, job in seen if kind != "error"] == [None] * 3


async def test_the_hook_of_errors_knows_what_follows() -> None:
    outcomes: list[str] = []

    def failed(job: JobContext, _error: BaseException) -> None:
        outcomes.append(type(job.outcome).__name__)

    async def broken(_message: object, _context: Context) -> None:
        raise ValueError("no")

    async with running(
        worker(broken), dependencies=Dependencies(hooks=JobHooks(on_job_error=failed))
    ) as service:
        await put(service, "a")
    assert outcomes[-1] == "Exhausted"
    assert set(outcomes[:-1]) == {"RetryAfter"}


async def test_a_failing_hook_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("secret")

    hooks = JobHooks(on_job_start=broken, on_job_done=broken)
    async with running(worker(nothing), dependencies=Dependencies(hooks=hooks)) as service:
        await put(service, "a")
        assert service.service.stats()[NAME].handled == 1
    assert "a job hook failed" in caplog.text
    assert "secret" not in caplog.text


async def test_a_skip_is_done() -> None:
    calls: list[str] = []

    async def skip(_message: object, _context: Context) -> None:
        raise Skip

    hooks = metrics_hooks(
        lambda *given: calls.append(f"start {given}"),
        lambda *given: calls.append(f"done {given}"),
        lambda *given: calls.append(f"error {given}"),
    )
    async with running(worker(skip), dependencies=Dependencies(hooks=hooks)) as service:
        await put(service, "a")
    assert calls == [f"start ('{NAME}', 'work')", f"done ('{NAME}', 'work')"]


async def test_merged_hooks_are_called_in_turn(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "protoflow.jobs")
    alerts: list[str] = []
    counted: list[str] = []

    async def broken(_message: object, _context: Context) -> None:
        raise ValueError("secret")

    hooks = (
        logging_hooks()
        .merge(alerting_hooks(lambda job, error: alerts.append(f"{job.handler_name}: {error}")))
        .merge(metrics_hooks(on_error=lambda name, _topic: counted.append(name)))
    )
    async with running(worker(broken), dependencies=Dependencies(hooks=hooks)) as service:
        await put(service, "a")
    assert alerts == [f"{NAME}: secret"] * 3
    assert counted == [NAME] * 3
    records = [record for record in caplog.records if record.name == "protoflow.jobs"]
    assert [record.getMessage() for record in records[:2]] == [
        "job started", "job failed",
    ]  # fmt: skip
    assert records[-1].__dict__["retry_count"] == 2
    assert "secret" not in "".join(record.getMessage() for record in records)


def test_without_hooks_there_is_nothing_in_the_chain() -> None:
    async def last(*_: object) -> Any: ...

    assert job_hooks()(last, None) is last  # type: ignore[arg-type]
    assert job_hooks(JobHooks())(last, None) is last  # type: ignore[arg-type]
