"""The hostile messages that every broker can carry: fields, kinds, and what must become of them.

Text in metadata may be bytes that are no UTF-8, or have lone surrogates: writers put down what
their broker can carry. `{group}`, `{topic}` and `{dead letter}` are filled in by the judge.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from tests.acceptance.contract import pb

Text = str | bytes


class Special(Enum):
    """Payloads that depend on where the message goes."""

    #: What the topic's handler can read; it names the row.
    VALID = "valid"
    #: Not readable, and as large as the broker takes.
    AT_LIMIT = "at the limit"


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """One hostile message.

    Attributes:
        field: what is wrong.
        kind: how.
        topic: where it goes: tasks, mixed, reports.eu, things or notes.
        metadata: by the runtime's names (`ce_type`, `content-type`...).
        payload: the bytes.
        key: the key; None takes one that good neighbours have.
        handled: its handler must get it, as at its first attempt.
        native: what only this broker's writer understands.
    """

    field: str
    kind: str
    topic: str = "tasks"
    metadata: Mapping[str, Text | None] = dataclasses.field(default_factory=dict)
    payload: bytes | Special | None = Special.VALID
    key: bytes | None = None
    handled: bool = False
    native: Any = None

    @property
    def name(self) -> str:
        return f"{self.field}: {self.kind}"


NUMBERS: dict[str, Text] = {
    "infinity": "inf",
    "minus infinity": "-inf",
    "no number": "nan",
    "400 digits": "9" * 400,
    "overflow": "1e999",
    "negative": "-1",
    "year 9999": "253402300799",
    "words": "soon",
    "empty": "",
    "foreign digits": "٣",
}
TEXTS: dict[str, Text] = {
    "empty": "",
    "long": "x" * 9000,
    "line breaks": "a\r\npf_dead_letter: true\r\n\r\nb",
    "controls": "a\x1b[31m\x07\x7f b",
    "Latin-1": "Müller".encode("latin-1"),
    "lone surrogate": "a\ud800b",
    "turned around": "\u202egro.example\u2066",
}
#: Hop state that is a number. None of it is believed on a topic that others write to.
_HOP_NUMBERS = (
    "pf_attempt", "pf_due", "pf_first_failure", "pf_deliveries", "pf_max_attempts",
    "pf_original_offset", "pf_original_timestamp", "pf_dead_lettered_at",
)  # fmt: skip
_HOP_TEXTS = {
    "pf_group": "{group}",
    "pf_handler": "suite.v1.Keyed.Keyed",
    "pf_original_topic": "{dead_letter}",
    "pf_original_partition": "-7",
    "pf_dead_letter": "true",
    "pf_dlq_resolved": "{topic}",
    "pf_error_class": "decode",
    "pf_error_type": "Forged",
    "pf_error_message": "forged",
    "pf_traceparent": "00-" + "f" * 32 + "-" + "f" * 16 + "-ff",
}
_ATTRIBUTES = (
    "ce_id", "ce_type", "ce_source", "ce_specversion", "ce_time", "ce_subject", "ce_dataschema",
    "ce_datacontenttype", "content-type", "correlation_id", "causation_id", "traceparent",
    "tracestate", "baggage", "message_id", "name", "_watermill_message_uuid",
    "event_message_schema", "pf_correlation_id", "pf_key", "pf_tombstone", "pf_encoded",
)  # fmt: skip
_TOPICS = ("tasks", "mixed", "things", "reports.eu", "notes")

CE = "application/cloudevents+json"


def common() -> list[Hostile]:
    """The rows for every broker."""
    return [
        *_hop_state(),
        *_attributes(),
        *_payloads(),
        *_json(),
        *_things(),
        *_envelopes(),
    ]


def _hop_state() -> Iterator[Hostile]:
    for name in _HOP_NUMBERS:
        for kind, value in NUMBERS.items():
            yield Hostile(
                field=name,
                kind=kind,
                metadata={"pf_group": "{group}", name: value},
                handled=True,
            )
    for name, value in _HOP_TEXTS.items():
        for kind, text in {"forged": value, "long": TEXTS["long"], "Latin-1": b"\xe4"}.items():
            yield Hostile(field=name, kind=kind, metadata={name: text}, handled=True)
    everything = {**dict.fromkeys(_HOP_NUMBERS, "7"), **_HOP_TEXTS}
    yield Hostile(field="all hop state", kind="forged", metadata=everything, handled=True)


def _attributes() -> Iterator[Hostile]:
    for place, name in enumerate(_ATTRIBUTES):
        for number, (kind, value) in enumerate(TEXTS.items()):
            topic = _TOPICS[(place + number) % len(_TOPICS)]
            yield Hostile(field=name, kind=kind, topic=topic, metadata={name: value})
    for version in ("0.3", "2.0", "1"):
        yield Hostile(field="ce_specversion", kind=version, metadata={"ce_specversion": version})
    for time in ("9999-12-31T23:59:59Z", "0000-00-00T00:00:00Z", "1e400"):
        yield Hostile(field="ce_time", kind=time, metadata={"ce_time": time})
    types = ("suite.v1.Remark", "suite.v1.", "*", "google.protobuf.Any", "suite.v1.Task ", "None")
    for kind in types:
        yield Hostile(
            field="ce_type", kind=f"wrong: {kind}", topic="mixed", metadata={"ce_type": kind}
        )


def _payloads() -> Iterator[Hostile]:
    whole = pb.Task(number=-1, key="k0", note="n" * 40, blob=b"b" * 40).SerializeToString()
    cases: dict[str, bytes | Special | None] = {
        "none": None,
        "empty": b"",
        "truncated": whole[:-7],
        "cut in a number": b"\x08\xff",
        "endless number": b"\x08" + b"\xff" * 30,
        "length beyond the end": b"\x12\xff\xff\xff\xff\x0f" + b"a",
        "wrong wire type": b"\x0a\x01a" + b"\x15\0\0\0\0",
        "group that never ends": b"\x0b" * 50,
        "groups in groups": b"\x0b" * 400 + b"\x0c" * 400,
        "no UTF-8 in text": b"\x12\x02\xff\xfe",
        "surrogate in text": b"\x12\x03\xed\xa0\x80",
        "field number 0": b"\x02\x01a",
        "only zeros": b"\0" * 64,
        "only ones": b"\xff" * 64,
        "gzip": b"\x1f\x8b\x08\0" + b"\0" * 20,
        "JSON": b'{"number": 1}',
        "HTML": b"<!DOCTYPE html><html>502 Bad Gateway</html>",
        "as large as can be": Special.AT_LIMIT,
    }
    for topic in ("tasks", "mixed", "things"):
        for kind, payload in cases.items():
            if payload is not Special.AT_LIMIT or topic == "tasks":
                yield Hostile(field=f"payload of {topic}", kind=kind, topic=topic, payload=payload)
    for kind, key in {"empty": b"", "no UTF-8": b"\xff\0\xfe", "long": b"k" * 3000}.items():
        yield Hostile(field="key", kind=kind, key=key)


def _json() -> Iterator[Hostile]:
    deep = 20_000
    cases: dict[str, bytes] = {
        "truncated": b'{"number": -1, "text": "a',
        "surrogate": b'{"text": "\\ud800", "number": "\\udfff"}',
        "surrogate as name": b'{"\\ud800": 1}',
        "no UTF-8": b'{"text": "M\xfcller"}',
        "UTF-16": '{"text": "a"}'.encode("utf-16"),
        "byte order mark": b'\xef\xbb\xbf{"text": "a"}',
        "NaN": b'{"number": NaN, "id": NaN, "amount": NaN}',
        "infinity": b'{"number": Infinity, "id": -Infinity}',
        "overflow": b'{"number": 1e999, "id": 1e999}',
        "5,000 digits": b'{"number": ' + b"9" * 5000 + b"}",
        "beyond 64 bits": b'{"id": 99999999999999999999999}',
        "list": b"[1, 2, 3]",
        "null": b"null",
        "text": b'"text"',
        "deep": b"[" * deep + b"]" * deep,
        "deep objects": b'{"a":' * 5000 + b"1" + b"}" * 5000,
        "deep, never closed": b'{"a":' * deep,
        "one name often": b'{"text": "a", "text": "b", "id": 1, "id": 2}',
        "wrong types": b'{"id": {"a": 1}, "text": [1], "number": {}}',
        "100,000 names": b"{" + b",".join(b'"k%d":1' % n for n in range(60_000)) + b"}",
        "zero byte": b'{"text": "a\\u0000b\0"}',
        "empty": b"",
    }
    for kind, payload in cases.items():
        for topic in ("reports.eu", "notes"):
            yield Hostile(
                field=f"JSON of {topic}", kind=kind, topic=topic, payload=payload,
                metadata={"content-type": "application/json"},
            )  # fmt: skip
    wrong = ("text/xml", "application/json; charset=utf-7", "application/avro", "a" * 250, ";", "/")
    for value in wrong:
        yield Hostile(
            field="content-type", kind=f"wrong: {value[:30]}", payload=b"{}",
            metadata={"content-type": value},
        )  # fmt: skip


def _things() -> Iterator[Hostile]:
    unknown = {"type_url": "type.googleapis.com/no.Such", "value": b"x"}
    strange = pb.Thing(name="-1", any=unknown)
    yield _thing("Any of a type that nobody knows", strange)
    strange = pb.Thing(name="-1", any={"type_url": "\x1b[31m//", "value": b"\xff"})
    yield _thing("Any with a broken address", strange)
    for kind, number in {"NaN": float("nan"), "infinity": float("inf")}.items():
        strange = pb.Thing(name="-1", amount=number)
        strange.tree.fields["a"].number_value = number
        yield _thing(f"{kind} in a Struct", strange)
    strange = pb.Thing(name="-1")
    strange.tree.fields["a"].SetInParent()
    yield _thing("Struct with nothing in a value", strange)
    value = strange.tree.fields["deep"]
    for _ in range(40):
        value = value.struct_value.fields["a"]
    value.string_value = "bottom"
    yield _thing("deep Struct", strange)
    strange = pb.Thing(name="-1", secrets={"\x1b[0m": "a\r\nb"}, tokens=["", "a\r\nb"] * 500)
    yield _thing("line breaks in secrets", strange)
    bomb = b'{"any":{"@type":"type.googleapis.com/google.protobuf.Any","value":' * 90
    for kind, payload in {
        "Any in Any": bomb + b"{}" + b"}" * 180,
        "unknown Any": b'{"any": {"@type": "type.googleapis.com/no.Such"}}',
        "deep Struct": b'{"tree": {"a":' + b'{"b":' * 300 + b"1" + b"}" * 302,
        "bad base64": b'{"code": "%%%"}',
    }.items():
        yield Hostile(
            field="JSON of things", kind=kind, topic="things", payload=payload,
            metadata={"content-type": "application/json"},
        )  # fmt: skip


def _thing(kind: str, message: Any) -> Hostile:
    return Hostile(
        field="thing", kind=kind, topic="things", payload=message.SerializeToString(), handled=True
    )


def _envelope(**changes: Any) -> bytes:
    """An envelope of a task; a value of ... leaves the member out."""
    data = base64.b64encode(pb.Task(number=-1, key="k0").SerializeToString()).decode()
    members = {
        "specversion": "1.0", "id": "e", "source": "/s", "type": "suite.v1.Task",
        "datacontenttype": "application/protobuf", "data_base64": data, **changes,
    }  # fmt: skip
    return json.dumps({k: v for k, v in members.items() if v is not ...}).encode()


def _envelopes() -> Iterator[Hostile]:
    cases: dict[str, bytes] = {
        "not JSON": b"not JSON",
        "a list": b"[]",
        "null": b"null",
        "empty": b"",
        "truncated": _envelope()[:-9],
        "no UTF-8": b'{"id": "\xff"}',
        "deep": b'{"data":' * 20_000,
        "one member often": _envelope()[:-1] + b',"type":"other","type":"suite.v1.Task"}',
        "data twice": _envelope(data={"number": 1}),
        "no data": _envelope(data_base64=...),
        "data_base64 broken": _envelope(data_base64="%%%="),
        "data_base64 a number": _envelope(data_base64=5),
        "data_base64 with a surrogate": _envelope(data_base64="\ud800"),
        "extension with a surrogate": _envelope(ext="\ud800"),
        "extension as a name with a surrogate": _envelope(**{"\ud800": "x", "Ünï": 1}),
        "extension nested": _envelope(ext={"a": [1, {"b": None}]}),
        "extension huge": _envelope(ext=10**400),
        "extension infinite": _envelope(ext=float("inf")),
        "year 10000": _envelope(time="10000-01-01T00:00:00Z"),
        "5,000 digits": _envelope()[:-1] + b', "n": ' + b"9" * 5000 + b"}",
    }
    for member in ("specversion", "id", "source", "type", "datacontenttype", "subject"):
        for kind, value in {
            "left out": ..., "null": None, "a number": 7, "a list": ["x"], "empty": "",
            "with a surrogate": "a\ud800", "with line breaks": "a\r\nb",
        }.items():  # fmt: skip
            cases[f"{member} {kind}"] = _envelope(**{member: value})
    for kind, payload in cases.items():
        yield Hostile(field="envelope", kind=kind, payload=payload, metadata={"content-type": CE})
    # Hop state in an envelope comes from strangers, too.
    forged = {"pf_group": "{group}", "pf_attempt": "inf", "pf_due": "253402300799"}
    yield Hostile(
        field="envelope", kind="hop state", metadata={"content-type": CE},
        payload=_envelope(**forged),
    )  # fmt: skip
    kinds = ("", "+xml", "+json; charset=utf-16", "-batch+json", "+protobuf")
    for value in [f"application/cloudevents{kind}" for kind in kinds]:
        yield Hostile(
            field="envelope", kind=value, payload=_envelope(), metadata={"content-type": value}
        )
    yield Hostile(
        field="envelope", kind="marked by nothing", payload=_envelope(id=["x"]),
        metadata={"ce_specversion": "1.0", "content-type": None},
    )  # fmt: skip
