"""Runs subjects, each in a fresh process, in turn, and keeps what they print."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from typing import Any

from benchmarks.generated import ROOT, environment
from benchmarks.model import Group, Measured, Subject


class SubjectFailedError(Exception):
    """A subject gave no result; the text says why."""


class Runner:
    """Runs groups on brokers that are there."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = urls
        self._environment = environment()
        self._runs: list[str] = []

    def group(self, group: Group, runs: int) -> dict[str, Measured]:
        """Every subject once a round, so that drift of the machine meets all alike. One that
        fails is left out from then on."""
        measured = {subject.name: Measured() for subject in group.subjects}
        for number in range(1, runs + 1):
            for subject in group.subjects:
                into = measured[subject.name]
                if into.failure:
                    continue
                start = time.monotonic()
                try:
                    into.add(self.once(subject, group.timeout))
                    told = _told(into)
                except SubjectFailedError as error:
                    into.failure = told = str(error)
                seconds = time.monotonic() - start
                text = f"  {group.name} {number}/{runs} {subject.name}: {told} ({seconds:.1f} s)"
                print(text, file=sys.stderr, flush=True)
        self._clean(group)
        return measured

    def once(self, subject: Subject, timeout: float) -> dict[str, Any]:
        """One run; what the subject printed."""
        run = f"b{uuid.uuid4().hex[:10]}"
        self._runs.append(run)
        filled = {"url": self._urls.get(subject.broker, ""), "run": run}
        arguments = [text.format(**filled) for text in subject.arguments]
        output = self._run(f"benchmarks.subjects.{subject.module}", arguments, timeout)
        for line in reversed(output.splitlines()):
            if line.startswith("{"):
                result: dict[str, Any] = json.loads(line)
                return result
        raise SubjectFailedError("no result")

    def _run(self, module: str, arguments: list[str], timeout: float) -> str:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=self._environment,
            start_new_session=True,  # so that its children can be ended with it
        )
        try:
            output, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise SubjectFailedError(f"no result in {timeout:g} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode:
            lines = errors.strip().splitlines()
            reason = lines[-1] if lines else f"exit status {process.returncode}"
            raise SubjectFailedError(reason.replace(f"{ROOT}/", ""))  # it may go into the page
        return output

    def _clean(self, group: Group) -> None:
        """Takes from the brokers what the runs have left there."""
        runs, self._runs = self._runs, []
        for broker in sorted(group.brokers):
            try:
                self._run("benchmarks.subjects.clean", [broker, self._urls[broker], *runs], 60)
            except SubjectFailedError as error:
                print(f"  {broker} keeps what was published: {error}", file=sys.stderr)


def _told(measured: Measured) -> str:
    figures = {name: values[-1] for name, values in measured.figures.items()}
    return ", ".join(f"{name} {value:,.6g}" for name, value in figures.items())
