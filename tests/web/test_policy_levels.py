"""The level of the `.proto` that sets a value of a policy."""

from __future__ import annotations

from protoflow.contract.policy import leaves
from protoflow.web.api.policy_levels import levels

from tests.acceptance.contract import pf


def test_the_innermost_level_that_sets_a_value_is_named() -> None:
    found = levels("suite.v1.Keyed.Keyed")
    assert (found["ordering"], found["retry.max_attempts"]) == ("service", "file")
    found = levels("suite.v1.Strict.Strict")
    assert (found["unhandled"], found["dead_letter.topic"]) == ("method", "method")


def test_every_value_of_the_specification_has_a_level() -> None:
    for name in ("Keyed", "Strict", "Work", "Transform"):
        handler = getattr(pf, f"{name}Handler")
        for method in handler.__protoflow_spec__.methods:
            assert set(levels(method.name)) == set(leaves(method.delivery))


def test_handlers_without_an_rpc_have_none() -> None:
    assert levels("billing") == {}
    assert levels("suite.v1.Keyed.Missing") == {}
