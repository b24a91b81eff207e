"""Facts about annotations: the rule for each value, and the roles of fields.

A value without a rule is used unchanged; `options` reads every value in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from protoflow.v1.policy_fields import BATCH_FIELDS, DELIVERY_FIELDS

from protoc_gen_protoflow import value_rules

_INTEGERS = frozenset(
    FieldDescriptorProto.Type.Value(f"TYPE_{kind}{bits}")
    for kind in ("INT", "UINT", "SINT", "FIXED", "SFIXED")
    for bits in (32, 64)
)
_TEXTS = _INTEGERS | {FieldDescriptorProto.TYPE_STRING}

#: A rule gets the name of the option and the value, and yields errors.
Rule = Callable[[str, Any], Iterator[str]]

#: The rules by the path of the option, for example `retry.jitter`. Durations and enums have rules
#: of their own.
RULES: Final[dict[str, Rule]] = {
    "type": value_rules.text_problems,
    "data_schema": value_rules.text_problems,
    "source": value_rules.source_problems,
    "consumer_group": value_rules.topic_problems,
    **{
        path: partial(value_rules.number_problems, field.limit)
        for path, field in {**DELIVERY_FIELDS, **BATCH_FIELDS}.items()
        if field.limit
    },
}


class Role(NamedTuple):
    """A role that one field of a message can have.

    Attributes:
        types: the types of fields that can have it.
        kinds: these types in words.
    """

    types: frozenset[int]
    kinds: str


#: The roles by the name of the option; `MessageSpec` has a field of the same name.
ROLES: Final = {
    "partition_key": Role(_TEXTS | {FieldDescriptorProto.TYPE_BYTES}, "string, bytes or integer"),
    "subject": Role(_TEXTS, "string or integer"),
}
