"""What foreign messages of a source do not name is added; what they name is kept."""

from __future__ import annotations

from typing import Any

import pytest
from protoflow import wire
from protoflow.contract.topic_source import TopicSource
from protoflow.message import Message
from protoflow.scheduling.router import Router
from protoflow.scheduling.source_labels import SourceLabels

ROUTE: Any = object()


def labelled(metadata: dict[str, str], *types: str, **source: str) -> dict[str, str]:
    router = Router(dict.fromkeys(types or ("a.B",), ROUTE), (ROUTE,), {"old.B": "a.B"})
    labels = SourceLabels(TopicSource(name="old", **source), router)
    got = labels.apply(Message(id="1", topic="t", payload=b"{}", metadata=metadata))
    return dict(got.metadata)


@pytest.mark.parametrize(
    ("metadata", "source", "added"),
    [
        ({}, {}, {wire.CE_TYPE: "a.B"}),  # the only type
        ({wire.CE_TYPE: "x.Y"}, {}, {}),  # another type, which stays unhandled
        ({wire.CE_TYPE: "x.Y"}, {"type": "a.B"}, {wire.CE_TYPE: "a.B"}),
        ({wire.CE_TYPE: "old.B"}, {"type": "a.B"}, {}),  # `type_names` knows it
        ({wire.GO_SCHEMA: "*a.B"}, {"type": "a.B"}, {}),
        ({wire.CONTENT_TYPE: "text/plain"}, {"content_type": wire.JSON},
         {wire.CONTENT_TYPE: wire.JSON, wire.CE_TYPE: "a.B"}),
        ({wire.CONTENT_TYPE: wire.PROTOBUF}, {"content_type": wire.JSON}, {wire.CE_TYPE: "a.B"}),
    ],
)  # fmt: skip
def test_labels(metadata: dict[str, str], source: dict[str, str], added: dict[str, str]) -> None:
    assert labelled(metadata, **source) == metadata | added


def test_of_several_types_none_is_guessed() -> None:
    assert labelled({}, "a.B", "a.C") == {}
    assert labelled({}, "a.B", "a.C", type="a.C") == {wire.CE_TYPE: "a.C"}
