"""Each mutation is found for what it is, and nothing more."""

from __future__ import annotations

import pytest
from protoflow.breaking.compare import compare
from protoflow.breaking.rules import RULES
from protoflow.config import Config

from tests.breaking.mutations import MUTATIONS, Mutation
from tests.breaking.versions import version


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_found(name: str) -> None:
    mutation: Mutation = MUTATIONS[name]
    old, new = (
        Config(
            environ={},
            **(
                {"transport": f"sqlite:///{number}.db"}
                if "transport" in settings
                else {"transport": "sqlite:///1.db"}
            )
            | {k: v for k, v in settings.items() if k != "transport"},
        )
        for number, settings in ((1, mutation.old_settings), (2, mutation.new_settings))
    )
    found = compare(
        version("old", mutation.old, old).contract, version("new", mutation.new, new).contract
    )
    assert {one.kind for one in found} == set(mutation.kinds.split())
    assert all(one.place.startswith("shop.proto:") or not one.place for one in found)


def test_every_rule_has_a_mutation() -> None:
    mutated = {kind for mutation in MUTATIONS.values() for kind in mutation.kinds.split()}
    assert mutated == RULES.keys() - {"shards.changed"}
