"""Each mutation is found for what it is, and nothing more."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

import pytest
from protoflow import Config
from protoflow.breaking.change import Change
from protoflow.breaking.compare import compare
from protoflow.breaking.deployment import deployment
from protoflow.breaking.rules import RULES
from protoflow.breaking.verdict import Rollout, Verdict
from protoflow.contract.policy import BUILT_IN, leaves
from protoflow.v1.policy_fields import DELIVERY_FIELDS

from tests.breaking.mutations import BASE, MUTATIONS, changed
from tests.breaking.trial import SqliteTrial
from tests.breaking.versions import version


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_found(name: str, tmp_path: Path) -> None:
    mutation = MUTATIONS[name]
    trial = SqliteTrial(mutation, tmp_path)
    found = compare(trial.old.contract, trial.new.contract)
    assert {one.kind for one in found} == set(mutation.kinds.split())
    assert all(one.place.startswith("shop.proto:") or not one.place for one in found)


def test_every_rule_has_a_mutation() -> None:
    mutated = {kind for mutation in MUTATIONS.values() for kind in mutation.kinds.split()}
    assert mutated == RULES.keys() - {"shards.changed"}
    assert len(MUTATIONS) >= 40


def _compared(new: str, old: str = BASE, url: str = "memory://", **settings: Any) -> list[Change]:
    before = Config(transport=url, environ={})
    after = Config(transport=url, environ={}, **settings)
    return compare(
        version("old", old, before).contract,
        version("new", new, after).contract,
        before.url.scheme,
    )


def _other(path: str, value: Any) -> Any:
    """A value of a policy that is not this one."""
    limit = DELIVERY_FIELDS[path].limit
    if limit is not None:
        numbers = (2 * (value or 1), 0.5)
        return next(number for number in numbers if limit.allows(number) and number != value)
    if isinstance(value, enum.Enum):
        return next(one for one in type(value) if one is not value)
    return not value if isinstance(value, bool) else "{topic}..{group}..elsewhere"


@pytest.mark.parametrize("path", DELIVERY_FIELDS)
def test_every_leaf_of_a_policy_is_compared(path: str) -> None:
    name = "shop.v1.Audit.Record"
    contract = version("new", BASE, Config(environ={})).contract
    known = leaves(contract.handlers[name].registration.delivery)
    other = _other(path, known.get(path, leaves(BUILT_IN).get(path)))
    prefix, _, leaf = path.rpartition(".")
    policy = {prefix: {leaf: other}} if prefix else {leaf: other}
    assert _compared(BASE, handlers={name: policy})


def test_one_line_that_changes_several_handlers_is_one_change() -> None:
    line = "option (protoflow.v1.file) = { delivery: { concurrency: 4 } };\n"
    [found] = _compared(line + BASE)
    assert found.subjects == (
        "shop.v1.Orders.BillOrder", "shop.v1.Orders.TakePayment", "shop.v1.Audit.Record",
    )  # fmt: skip
    assert found.place == "shop.proto:5"


def test_a_value_that_moves_to_another_level_is_no_change() -> None:
    in_service = changed(
        BASE, "    delivery: {\n      ordering", "delivery: { concurrency: 4 ordering"
    )
    line = "option (protoflow.v1.file) = { delivery: { concurrency: 4 } };\n"
    found = _compared(line + BASE, in_service)
    assert [one.subjects for one in found] == [("shop.v1.Audit.Record",)]


def test_shards_are_fixed() -> None:
    [found] = _compared(BASE, url="amqp://localhost", transport_options={"shards": 4})
    assert found.kind == "shards.changed"
    assert (found.old, found.new) == ("1", "4")
    assert found.consequence("amqp").verdict is Verdict.DRAIN


def test_rollouts_of_several_changes_are_put_together() -> None:
    renamed = changed(BASE, "OrderPaid", "PaymentTaken")
    [part] = deployment(_compared(renamed))
    assert part.rollout is Rollout.DRAIN
    assert part.kinds[0] == "type.removed"
    weaker = changed(renamed, "ORDERING_PER_KEY", "ORDERING_NONE")
    kept, drained = deployment(_compared(weaker))
    assert (kept.rollout, kept.kinds) == (Rollout.KEEP, ("ordering.weaker",))
    assert drained.rollout is Rollout.DRAIN
    assert deployment(_compared("// An order.\n" + BASE)) == []
