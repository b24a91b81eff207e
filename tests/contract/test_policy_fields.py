"""The facts about policy fields are those of the annotations and of the specification."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from protoflow import web
from protoflow.contract.policy import BUILT_IN, leaves
from protoflow.contract.spec import BatchPolicy, DeadLetterPolicy, DeliveryPolicy, RetryPolicy
from protoflow.v1 import options_pb2
from protoflow.v1.policy_fields import BATCH_FIELDS, DELIVERY_FIELDS, SHARED_FIELDS


def annotated(policy: Descriptor, prefix: str = "") -> Iterator[str]:
    for field in policy.fields:
        inner = field.message_type
        if inner is not None and inner.file is policy.file:
            yield from annotated(inner, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def specified(policy: Any, prefix: str = "") -> Iterator[str]:
    for field in fields(policy):
        value = getattr(policy, field.name)
        if isinstance(value, RetryPolicy | DeadLetterPolicy):
            yield from specified(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


@pytest.mark.parametrize(
    ("known", "annotation", "policy"),
    [
        (DELIVERY_FIELDS, options_pb2.DeliveryPolicy, DeliveryPolicy()),
        (BATCH_FIELDS, options_pb2.BatchPolicy, BatchPolicy()),
    ],
)
def test_annotations_facts_and_specification_have_the_same_fields(
    known: dict[str, object], annotation: Any, policy: object
) -> None:
    assert set(known) == set(annotated(annotation.DESCRIPTOR)) == set(specified(policy))


def test_built_in_values_keep_to_their_limits() -> None:
    for path, value in leaves(BUILT_IN).items():
        limit = DELIVERY_FIELDS[path].limit
        assert limit is None or limit.allows(value)


def test_what_a_subscription_shares() -> None:
    assert SHARED_FIELDS == ("ordering", "concurrency", "unhandled", "start", "atomic")


def test_the_dashboard_names_leaves_that_exist() -> None:
    script = (Path(web.__file__).parent / "dashboard" / "static" / "handlers.js").read_text()
    calls = re.findall(r'\bfrom\(("[^)]*")\)', script)
    named = {leaf for call in calls for leaf in re.findall(r'"([^"]+)"', call)}
    assert named
    assert named <= DELIVERY_FIELDS.keys()
