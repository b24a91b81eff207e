"""The schemas of payloads, against real messages and against protovalidate."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import protovalidate
import pytest
from google.protobuf import json_format
from protoflow.contract.catalog import Catalog

from tests.asyncapi.samples import Sampler

Documents = dict[str, dict[str, Any]]
#: Rules whose violations a schema finds, too.
_SAID = {
    *("string.len", "string.min_len", "string.max_len", "string.prefix", "string.suffix"),
    *("string.contains", "string.not_contains", "string.in", "string.not_in", "string.const"),
    *("bytes.min_len", "int32.gt", "int32.gte_lte", "int32.gte", "int32.lte"),
    *("int32.gt_lt_exclusive", "uint32.in", "uint32.gte", "uint32.gte_lte", "sint32.not_in"),
    *("int64.in", "double.gte_lt", "double.finite", "double.lt", "float.gte", "bool.const"),
    *("enum.in", "enum.not_in", "repeated.max_items", "repeated.unique", "map.min_pairs"),
    *("map.max_pairs", "required", "message.oneof"),
}
_LIMITS = ("limits.v1.Texts", "limits.v1.Numbers", "limits.v1.Groups")


def checker(documents: Documents, name: str) -> Any:
    """A validator for the JSON of a message."""
    components = documents["static"]["components"]
    schema = {"components": components, **components["messages"][name]["payload"]}
    return jsonschema.Draft7Validator(schema)


def class_of(catalog: Catalog, name: str) -> Any:
    return catalog.messages[name].message_class


def as_json(message: Any, **options: Any) -> Any:
    return json.loads(json_format.MessageToJson(message, **options))


@pytest.mark.parametrize("prints_zeros", [False, True])
def test_messages_are_valid_in_their_json_form(
    catalog: Catalog, documents: Documents, prints_zeros: bool
) -> None:
    for name in ("kinds.v1.Everything", "shop.v1.OrderPlaced"):
        check, sampler = checker(documents, name), Sampler(seed=len(name))
        for _ in range(60):
            message = sampler.message(class_of(catalog, name))
            value = as_json(message, always_print_fields_with_no_presence=prints_zeros)
            assert [error.message for error in check.iter_errors(value)] == [], value


@pytest.mark.parametrize(
    "wrong",
    [
        {"anInt32": "5"},
        {"anInt32": 1.5},
        {"aUint32": -1},
        {"aUint64": "-1"},
        {"anInt64": "5.0"},
        {"anInt64": 1.5},
        {"aDouble": "5"},
        {"aBool": "true"},
        {"aString": 5},
        {"color": "RED"},
        {"color": 1},
        {"colors": ["COLOR_PINK"]},
        {"colors": "COLOR_RED"},
        {"counts": {"a": "x"}},
        {"nested": {"a": {}}},
        {"flags": {"yes": "x"}},
        {"nested": {"1": {"aBool": 5}}},
        {"text": "a", "number": 5},
        {"wait": "5"},
        {"object": []},
        {"list": {}},
        {"empty": 5},
        {"int64Value": "x"},
        {"boolValue": "x"},
        {"again": {"again": {"aString": 5}}},
        {"other-name": 5},
    ],
)
def test_what_is_no_message_is_refused(documents: Documents, wrong: dict[str, Any]) -> None:
    assert not checker(documents, "kinds.v1.Everything").is_valid(wrong)


def test_schemas_and_protovalidate_agree(catalog: Catalog, documents: Documents) -> None:
    """What breaks no rule is valid; what breaks one that a schema can say is not."""
    validator = protovalidate.Validator()
    for name in _LIMITS:
        check, seen, passed = checker(documents, name), set[str](), 0
        for message in samples(class_of(catalog, name)):
            broken = {one.proto.rule_id for one in validator.collect_violations(message)}
            value = as_json(message)
            errors = [error.message for error in check.iter_errors(value)]
            if not broken:
                passed += 1
                assert errors == [], value
            elif broken & _SAID:
                seen |= broken & _SAID
                assert errors, (value, broken)
        assert passed >= 3, name
        assert len(seen) >= 5, (name, seen)


def samples(kind: Any) -> list[Any]:
    """A valid message, and those that differ from it in one field or two."""
    valid, sampler = json_format.ParseDict(_VALID[kind.DESCRIPTOR.full_name], kind()), Sampler(7)
    found = [valid]
    for field in kind.DESCRIPTOR.fields:
        for _ in range(16):
            other = copy.deepcopy(valid)
            random = sampler.message(kind)
            other.ClearField(field.name)
            kept = kind()
            kept.CopyFrom(random)
            for name in kind.DESCRIPTOR.fields_by_name:
                if name != field.name:
                    kept.ClearField(name)
            other.MergeFrom(kept)
            found.append(other)
    return found


_VALID: dict[str, dict[str, Any]] = {
    "limits.v1.Texts": {
        "exact": "abc", "between": "ab", "code": "AB-7", "starts": "a.b", "ends": "(c)",
        "holds": "a+", "oneOf": "ab", "needed": "a", "there": "", "blob": "YQ==",
    },
    "limits.v1.Numbers": {
        "above": 1, "outside": 7, "count": 2, "share": 0.5, "ratio": 0.5, "yes": True,
        "needed": 3,
    },
    "limits.v1.Groups": {
        "some": [1], "counts": {"a": 1}, "word": "x", "left": "l", "at": "2026-01-01T00:00:00Z",
    },
}  # fmt: skip


def test_rules_without_a_keyword_stand_under_their_name(documents: Documents) -> None:
    schemas = documents["static"]["components"]["schemas"]
    texts = schemas["limits.v1.Texts"]["properties"]
    assert texts["short"]["x-protovalidate"] == {"max_bytes": 4}
    assert texts["short"]["maxLength"] == 4
    assert texts["onlyRe2"]["x-protovalidate"] == {"pattern": "(?i)^[a-z]*$"}
    assert "minLength" not in texts["never"]
    groups = schemas["limits.v1.Groups"]
    assert groups["x-protovalidate-cel"] == [{
        "id": "groups.sum", "message": "too many",
        "expression": "size(this.names) + size(this.counts) < 9",
    }]  # fmt: skip
    assert groups["properties"]["said"]["x-protovalidate-cel"] == [
        {"id": "said", "expression": "this != 'never'"}
    ]


def test_sensitive_fields_are_marked_and_have_no_examples(documents: Documents) -> None:
    schemas = documents["static"]["components"]["schemas"]
    groups = schemas["limits.v1.Groups"]["properties"]
    assert groups["example"]["examples"] == ["A-1"]
    assert groups["hidden"]["x-protoflow-sensitive"] is True
    assert "examples" not in groups["hidden"]
    assert schemas["shop.v1.OrderPlaced"]["properties"]["email"]["x-protoflow-sensitive"] is True
    line = schemas["shop.v1.OrderPlaced.Line"]["properties"]
    assert line["secretNote"]["x-protoflow-sensitive"] is True
    assert "x-protoflow-sensitive" not in line["sku"]
