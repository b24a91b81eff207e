"""Sensitive values: whatever a text does with them, and wherever they lie in a message."""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    json_format,
    message_factory,
    struct_pb2,
    text_format,
    timestamp_pb2,
    wrappers_pb2,
)
from hypothesis import given
from hypothesis import strategies as st
from protoflow.codecs.plain import shown
from protoflow.codecs.redaction import error_text, scrub, text_of, traceback_text
from protoflow.errors import DecodeError
from protoflow.outcomes import Outcome, Retry

STRING, INT64, DOUBLE, BYTES, MESSAGE, ENUM, FLOAT, BOOL = 9, 3, 1, 12, 11, 14, 2, 8
ONE, MANY = 1, 3


def _pool() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="test/v1/redaction.proto", package="red.v1", syntax="proto2",
        dependency=[
            "google/protobuf/any.proto", "google/protobuf/struct.proto",
            "google/protobuf/timestamp.proto",
        ],
    )  # fmt: skip
    mode = file.enum_type.add(name="Mode")
    mode.value.add(name="MODE_PUBLIC", number=0)
    mode.value.add(name="MODE_CONFIDENTIAL", number=1)
    card = file.message_type.add(name="Card")
    card.field.add(name="number", number=1, type=STRING, label=ONE)
    card.field.add(name="holder", number=2, type=STRING, label=ONE)
    sub = file.message_type.add(name="Sub")
    sub.field.add(name="token", number=1, type=STRING, label=ONE)
    sub.field.add(name="plain", number=2, type=STRING, label=ONE)
    login = file.message_type.add(name="Login")

    def add(name: str, number: int, type: int, label: int = ONE, type_name: str = "") -> None:
        login.field.add(
            name=name, number=number, type=type, label=label, type_name=type_name or None
        )

    add("user", 1, STRING)
    add("password", 2, STRING)
    add("card", 3, MESSAGE, ONE, ".red.v1.Card")
    add("tokens", 4, STRING, MANY)
    add("raw", 6, BYTES)
    add("num", 8, INT64)
    add("any", 9, MESSAGE, ONE, ".google.protobuf.Any")
    add("struct", 10, MESSAGE, ONE, ".google.protobuf.Struct")
    add("amount", 12, DOUBLE)
    add("mode", 14, ENUM, ONE, ".red.v1.Mode")
    add("self", 15, MESSAGE, ONE, ".red.v1.Login")
    add("born", 16, MESSAGE, ONE, ".google.protobuf.Timestamp")
    add("ratio", 17, FLOAT)
    add("flag", 18, BOOL)
    for name, number, kind, type_name in (
        ("secrets", 5, STRING, ""), ("subs", 13, MESSAGE, ".red.v1.Sub"),
    ):  # fmt: skip
        entry = login.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=STRING, label=ONE)
        entry.field.add(name="value", number=2, type=kind, label=ONE, type_name=type_name or None)
        add(name, number, MESSAGE, MANY, f".red.v1.Login.{name.title()}Entry")
    login.extension_range.add(start=100, end=200)
    file.extension.add(
        name="extra", number=100, type=MESSAGE, label=ONE, type_name=".red.v1.Sub",
        extendee=".red.v1.Login",
    )  # fmt: skip
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


POOL = _pool()


def class_of(name: str) -> Any:
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


Login, Sub, Card = (class_of(f"red.v1.{name}") for name in ("Login", "Sub", "Card"))
EXTRA = POOL.FindExtensionByName("red.v1.extra")
SENSITIVE = {
    "red.v1.Login": (
        "password", "card", "tokens", "secrets", "raw", "num", "amount", "struct", "mode", "born",
        "ratio", "flag",
    ),
    "red.v1.Sub": ("token",),
}  # fmt: skip


def login() -> Any:
    message = Login(
        user="eve", password='pä"ss\nLEAK1\'x', tokens=["LEAK4tok"], raw=b"LEAK7\xff\x00",
        num=424242, amount=98765.4321, mode=1, ratio=0.7123, flag=True,
    )  # fmt: skip
    message.card.number = "LEAK2-4111"
    message.card.holder = "LEAK3 Höld"
    message.secrets["LEAK6key"] = "LEAK5val"
    message.subs["q"].token = "LEAK9sub"
    message.subs["q"].plain = "seen-sub"
    message.any.Pack(Sub(token="LEAKAany", plain="seen-any"))
    message.struct.update({"LEAKBkey": ["LEAKBval", 1234567]})
    message.self.password = "LEAKCself"
    message.born.FromJsonString("1987-06-05T04:03:02Z")
    message.Extensions[EXTRA].token = "LEAKDext"
    return message


#: What no text may show, in any form.
LEAKS = (
    *(f"leak{n}" for n in "123456789abcd"), "424242", "98765.4", "98,765.4", "1234567",
    "confidential", "0.7123", "1987-06-05",
    # base64 and hexadecimal forms of values
    "teVBSzc".lower(), b"LEAK7".hex(), base64.b64encode(b"LEAK2-4111").decode().lower(),
)  # fmt: skip


def assert_clean(text: str) -> None:
    assert not [leak for leak in LEAKS if leak in text.lower()], text


QUOTES: dict[str, Callable[[Any], str]] = {
    "str": str,
    "repr": repr,
    "repr of str": lambda m: repr(str(m)),
    "json of str": lambda m: json.dumps(str(m)),
    "one line": lambda m: text_format.MessageToString(m, as_one_line=True),
    "as utf8": lambda m: text_format.MessageToString(m, as_utf8=True),
    "json": json_format.MessageToJson,
    "json, ascii": lambda m: json_format.MessageToJson(m, ensure_ascii=False),
    "dict": lambda m: str(json_format.MessageToDict(m)),
    "password": lambda m: m.password,
    "password repr": lambda m: repr(m.password),
    "password ascii": lambda m: ascii(m.password),
    "password quoted": lambda m: quote(m.password),
    "key error": lambda m: str(KeyError(m.password)),
    "card": lambda m: f"bad {m.card}",
    "number": lambda m: f"card {m.card.number} of {m.card.holder.upper()}",
    "map": lambda m: str(dict(m.secrets)),
    "bytes": lambda m: f"{m.raw!r} {bytearray(m.raw)!r}",
    "base64": lambda m: base64.b64encode(m.raw).decode(),
    "urlsafe": lambda m: base64.urlsafe_b64encode(m.card.number.encode()).decode(),
    "hex": lambda m: m.raw.hex(),
    "any": lambda m: str(m.any),
    "any bytes": lambda m: repr(m.any.value),
    "struct": lambda m: f"{m.struct} {dict(m.struct)}",
    "subs": lambda m: f"{m.subs['q']} {m.subs['q'].token}",
    "numbers": lambda m: f"{m.num} {m.num:,} {m.amount} {m.amount:,} {m.amount:.2f} {m.ratio}",
    "upper": lambda m: m.card.number.upper() + m.tokens[0].upper(),
    "lower": lambda m: m.card.number.lower() + m.tokens[0].lower(),
    "extension": lambda m: str(m.Extensions[EXTRA]),
    "self": lambda m: m.self.password,
    "enum": lambda m: class_of_enum(m.mode),
    "time": lambda m: f"{m.born.ToJsonString()} {m.born}",
}


def class_of_enum(number: int) -> str:
    name: str = Login.DESCRIPTOR.fields_by_name["mode"].enum_type.values_by_number[number].name
    return name


@pytest.mark.parametrize("how", sorted(QUOTES))
def test_no_form_of_a_sensitive_value_is_shown(how: str) -> None:
    message = login()
    error = ValueError(QUOTES[how](message))
    assert_clean(error_text(error, message, SENSITIVE))
    assert_clean(traceback_text(error, message, SENSITIVE))
    assert_clean(scrub(QUOTES[how](message), message, SENSITIVE))


def test_chained_errors_notes_and_groups_are_scrubbed() -> None:
    message = login()
    error = ExceptionGroup("g " + message.password, [ValueError(message.card.number)])
    error.add_note("note " + message.tokens[0])
    error.__cause__ = KeyError(message.self.password)
    text = traceback_text(error, message, SENSITIVE)
    assert_clean(text)
    assert "ExceptionGroup" in text
    assert "KeyError" in text


def test_what_is_not_sensitive_stays() -> None:
    text = scrub(str(login()), login(), SENSITIVE)
    for seen in ("eve", "seen-sub", "seen-any"):
        assert seen in text


def test_a_message_that_the_handler_cleared_is_known_as_it_came() -> None:
    came, message = login(), login()
    password = message.password
    message.Clear()
    assert_clean(error_text(ValueError(password), (came, message), SENSITIVE))


def test_what_nobody_can_scrub_is_not_shown() -> None:
    assert "secret" not in error_text(ValueError("secret"), None, SENSITIVE)
    assert "secret" not in traceback_text(ValueError("secret"), (), SENSITIVE)
    # Our own errors quote nothing, and without sensitive fields there is nothing to hide.
    assert error_text(DecodeError("7 bytes"), None, SENSITIVE) == "7 bytes [PF501]"
    assert error_text(ValueError("plain"), None, {}) == "plain"


def test_an_any_of_an_unknown_type_is_hidden_whole() -> None:
    message = Login()
    message.any.type_url = "type.googleapis.com/nobody.knows.It"
    message.any.value = b"\x0a\x0aLEAK2-4111"
    assert_clean(error_text(ValueError(f"{message} {message.any.value!r}"), message, SENSITIVE))
    assert_clean(json.dumps(shown(message, SENSITIVE)))


def test_shown_hides_all_of_it() -> None:
    tree = shown(login(), SENSITIVE)
    assert_clean(json.dumps(tree))
    assert tree["user"] == "eve"
    assert tree["subs"] == {"q": {"token": "***", "plain": "seen-sub"}}
    assert tree["any"]["plain"] == "seen-any"
    assert tree["[red.v1.extra]"] == {"token": "***"}
    assert tree["self"] == {"password": "***"}


@pytest.mark.parametrize(
    "message",
    [
        struct_pb2.Struct(fields={"a": struct_pb2.Value(number_value=math.nan)}),
        any_pb2.Any(type_url="type.googleapis.com/nobody.knows.It", value=b"\xff"),
        any_pb2.Any(type_url="\ud7ff/..", value=b"x"),
        any_pb2.Any(type_url="type.googleapis.com/google.protobuf.Struct", value=b"\xff"),
        timestamp_pb2.Timestamp(seconds=2**62),
        duration_pb2.Duration(seconds=-(2**62), nanos=2**31 - 1),
        wrappers_pb2.BytesValue(value=bytes(10_000)),
        wrappers_pb2.DoubleValue(value=math.inf),
        struct_pb2.ListValue(values=[struct_pb2.Value()] * 5000),
        struct_pb2.Value(),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_has_no_json_form_is_shown_all_the_same(message: Any) -> None:
    tree = shown(message, {})
    json.dumps(tree, allow_nan=False)
    assert len(json.dumps(tree)) < 50_000
    error_text(ValueError(str(message)), message, {"google.protobuf.Struct": ("fields",)})


def test_messages_in_messages_in_an_any_end_somewhere() -> None:
    message = any_pb2.Any()
    for _ in range(500):
        outer = any_pb2.Any()
        outer.Pack(message)
        message = outer
    json.dumps(shown(message, SENSITIVE))
    assert "LEAK" not in error_text(ValueError("LEAK"), message, SENSITIVE)


def test_a_great_many_values_cost_no_time_and_nothing_is_shown() -> None:
    message = Login(tokens=[f"token-{n}" for n in range(200_000)])
    started = time.process_time()
    assert "token-7" not in error_text(ValueError(str(message.tokens[7])), message, SENSITIVE)
    # A guard against squares, not a measurement: it takes some milliseconds.
    assert time.process_time() - started < 5


class Unprintable(Exception):
    def __str__(self) -> str:
        raise Unprintable


@pytest.mark.parametrize(
    "error",
    [
        Unprintable(),
        Retry("\ud800"),
        ValueError("\udcff", 3),
        KeyError("\ud800"),
        OSError(5, "\ud800"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_text_of_any_error_can_be_written(error: Exception) -> None:
    assert text_of(error).encode() is not None
    line = error_text(error, None, {})
    assert line.isprintable()
    traceback_text(error, None, {}).encode()


def test_no_line_of_a_traceback_looks_like_a_record() -> None:
    error = ValueError("x\n2026-01-01 00:00:00 CRITICAL forged\x1b[31m\r\x0bmore")
    text = traceback_text(error, None, {})
    assert all(line.startswith("  ") for line in text.split("\n"))
    assert "\x1b" not in text
    assert "\n" not in error_text(error, None, {})
    assert "ValueError: x" in text


TEXT = st.text(min_size=3, max_size=30)


@given(
    TEXT, st.lists(TEXT, max_size=3), st.binary(min_size=3, max_size=20),
    st.dictionaries(TEXT, TEXT, max_size=3), st.sampled_from(sorted(QUOTES)),
)  # fmt: skip
def test_any_value_is_hidden_in_any_quote(
    password: str, tokens: list[str], raw: bytes, secrets: dict[str, str], how: str
) -> None:
    message = login()
    message.password = password
    message.tokens[:] = [*tokens, "LEAK4tok"]
    message.raw = raw
    message.secrets.clear()
    message.secrets.update(secrets)
    text = scrub(QUOTES[how](message), message, SENSITIVE)
    for value in (password, *tokens, *secrets, *secrets.values()):
        for form in (value, repr(value)[1:-1], json.dumps(value)[1:-1]):
            assert form not in text or form in FRAME or set(form) <= {"*"}


#: What stands in the texts beside the values.
FRAME = " ".join(scrub(quote(login()), login(), SENSITIVE) for quote in QUOTES.values())


@given(st.binary(max_size=200))
def test_any_message_can_be_scrubbed_and_shown(payload: bytes) -> None:
    try:
        message = Login.FromString(payload)
    except Exception:
        return
    json.dumps(shown(message, SENSITIVE), allow_nan=False)
    text = error_text(ValueError(str(message)), message, SENSITIVE)
    assert text.isprintable()


def test_outcomes_keep_their_text() -> None:
    assert error_text(Outcome("why"), None, SENSITIVE) == "why"
