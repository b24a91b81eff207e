"""Policies: inheritance leaf by leaf, and the wait between runs."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from protoflow.contract.policy import BUILT_IN, leaves, merge, resolve
from protoflow.contract.spec import (
    DeadLetterPolicy,
    DeliveryPolicy,
    OnExhausted,
    Ordering,
    RetryPolicy,
    Start,
    UnhandledTypes,
)
from protoflow.v1.policy_fields import DELIVERY_FIELDS


def maybe(strategy: Any) -> Any:
    return st.none() | strategy


seconds = st.floats(min_value=0.001, max_value=1e6)
retries = st.builds(
    RetryPolicy,
    max_attempts=maybe(st.integers(1, 100)),
    initial_backoff=maybe(seconds),
    max_backoff=maybe(seconds),
    backoff_multiplier=maybe(st.floats(1, 10)),
    jitter=maybe(st.floats(0, 1)),
    max_elapsed=maybe(seconds),
)
policies = st.builds(
    DeliveryPolicy,
    ordering=maybe(st.sampled_from(Ordering)),
    concurrency=maybe(st.integers(1, 1000)),
    timeout=maybe(seconds),
    retry=retries,
    dead_letter=st.builds(
        DeadLetterPolicy,
        topic=maybe(st.sampled_from(["a", "{topic}.{group}.x"])),
        on_exhausted=maybe(st.sampled_from(OnExhausted)),
    ),
    unhandled=maybe(st.sampled_from(UnhandledTypes)),
    start=maybe(st.sampled_from(Start)),
    atomic=maybe(st.booleans()),
)


@given(policies, policies)
def test_the_override_wins_leaf_by_leaf(base: DeliveryPolicy, override: DeliveryPolicy) -> None:
    assert leaves(merge(base, override)) == {**leaves(base), **leaves(override)}


@given(policies, policies, policies)
def test_merging_is_associative(a: DeliveryPolicy, b: DeliveryPolicy, c: DeliveryPolicy) -> None:
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


@given(policies)
def test_nothing_changes_nothing(policy: DeliveryPolicy) -> None:
    assert merge(policy, DeliveryPolicy()) == merge(DeliveryPolicy(), policy) == policy


@given(policies)
def test_a_resolved_policy_has_no_gaps_and_knows_what_was_demanded(policy: DeliveryPolicy) -> None:
    resolved = resolve(policy)
    assert resolved.demands == set(leaves(policy))
    gaps = {leaf.name for leaf in fields(resolved) if getattr(resolved, leaf.name) is None}
    gaps |= {
        f"retry.{leaf.name}"
        for leaf in fields(resolved.retry)
        if getattr(resolved.retry, leaf.name) is None
    }
    assert gaps <= DELIVERY_FIELDS.keys() - leaves(BUILT_IN).keys()  # these have no bound


def test_the_built_in_values_are_those_of_the_design() -> None:
    built_in = resolve(DeliveryPolicy())
    assert built_in.ordering is Ordering.NONE
    assert built_in.concurrency == 16
    assert built_in.timeout is None
    assert built_in.dead_letter_topic == "{topic}..{group}..dead"
    assert built_in.on_exhausted is OnExhausted.DEAD_LETTER
    assert built_in.unhandled is UnhandledTypes.SKIP
    assert built_in.start is Start.EARLIEST
    assert built_in.atomic is False
    retry = built_in.retry
    assert (retry.max_attempts, retry.initial_backoff, retry.max_backoff) == (5, 1.0, 300.0)
    assert (retry.backoff_multiplier, retry.jitter, retry.max_elapsed) == (2.0, 0.5, None)
    assert built_in.demands == frozenset()


def test_a_built_in_backoff_yields_to_one_that_is_said() -> None:
    long = resolve(DeliveryPolicy(retry=RetryPolicy(initial_backoff=600.0))).retry
    assert (long.initial_backoff, long.max_backoff) == (600.0, 600.0)
    assert long.wait(1, 0.0) == long.wait(9, 0.0) == 600.0
    short = resolve(DeliveryPolicy(retry=RetryPolicy(max_backoff=0.25))).retry
    assert (short.initial_backoff, short.max_backoff) == (0.25, 0.25)


@given(retries, st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_every_wait_is_between_its_share_and_the_longest(
    policy: RetryPolicy, failures: int, random: float
) -> None:
    retry = resolve(replace(BUILT_IN, retry=merge(BUILT_IN.retry, policy))).retry
    wait = retry.wait(failures, random)
    assert 0.0 <= wait <= retry.max_backoff
    assert wait >= min(retry.initial_backoff, retry.max_backoff) * (1 - retry.jitter) * 0.999


@given(retries, st.integers(1, 500))
def test_waits_grow_from_run_to_run(policy: RetryPolicy, failures: int) -> None:
    retry = resolve(DeliveryPolicy(retry=policy)).retry
    assert retry.wait(failures, 0.0) <= retry.wait(failures + 1, 0.0)


def test_waits_are_those_of_the_formula() -> None:
    retry = resolve(DeliveryPolicy()).retry
    assert [retry.wait(run, 0.0) for run in (1, 2, 3, 10)] == [1.0, 2.0, 4.0, 300.0]
    assert retry.wait(1, 0.999999) > 0.5
    assert retry.wait(3, 0.5) == 3.0
