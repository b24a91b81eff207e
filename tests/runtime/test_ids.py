"""Ids: ULIDs that are unique whoever makes them, and sorted as they were made."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import Queue

import pytest
from protoflow import ids
from protoflow.ids import derived_id, new_id
from ulid import ULID


def test_ids_are_ulids_of_this_moment() -> None:
    before = time.time()
    made = [ULID.from_str(new_id()) for _ in range(1000)]
    after = time.time()
    assert all(before - 0.001 <= one.timestamp <= after for one in made)


def test_ids_sort_as_they_were_made() -> None:
    made = [new_id() for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_ids_of_many_threads_are_unique() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = [*pool.map(lambda _: new_id(), range(20_000))]
    assert len(set(made)) == len(made)


def test_ids_are_unique_while_the_clock_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    made = {new_id() for _ in range(1_200_000)}  # more than one run of numbers holds
    assert len(made) == 1_200_000
    ids.forget()


def _make(queue: Queue[list[str]]) -> None:
    queue.put([new_id() for _ in range(100)])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_makes_other_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)  # parent and child agree
    new_id()
    fork = multiprocessing.get_context("fork")
    queue: Queue[list[str]] = fork.Queue()
    child = fork.Process(target=_make, args=(queue,))
    child.start()
    theirs = queue.get(timeout=30)
    child.join()
    ours = [new_id() for _ in range(100)]
    assert not set(ours) & set(theirs)
    ids.forget()


def test_derived_ids_repeat_and_read_as_ulids() -> None:
    assert derived_id("a", "b", 1) == derived_id("a", "b", 1)
    made = {derived_id("a", "b", number) for number in range(1000)}
    assert len(made) == 1000
    assert {str(ULID.from_str(one)) for one in made} == made
    assert derived_id("a", "bc") != derived_id("ab", "c")


def test_derived_ids_never_change() -> None:
    # Stores of consumers hold them: another text for the same parts would be no copy.
    assert derived_id("01ARZ3NDEKTSV4RRFFQ69G5FAV", "billing", "shop.v1.Orders.Bill", 0) == (
        "5Z4VX0AD0N4M1XEBJ12794QKCN"
    )
