"""Conformance with CloudEvents 1.0.2: the examples of the specification, and its rules.

https://github.com/cloudevents/spec/tree/v1.0.2/cloudevents: spec.md, formats/json-format.md
and bindings/{kafka,amqp,nats,http}-protocol-binding.md.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast

import pytest
from protoflow import CloudEvent, wire
from protoflow.codecs.bindings import AMQP, HTTP, KAFKA, NATS, Binding
from protoflow.codecs.cloudevents import is_structured, unwrap, wrap
from protoflow.errors import DecodeError
from protoflow.message import Message
from protoflow.transports.nats.wire import headers as nats_headers

from tests.transports.nats.harness import block

#: What the examples of all formats and bindings say.
ATTRIBUTES = {
    "specversion": "1.0",
    "type": "com.example.someevent",
    "source": "/mycontext",
    "id": "A234-1234-1234",
    "time": "2018-04-05T17:31:00Z",
    "comexampleextension1": "value",
    "comexampleothervalue": 5,
}
METADATA = {
    "ce_specversion": "1.0",
    "ce_type": "com.example.someevent",
    "ce_source": "/mycontext",
    "ce_time": "2018-04-05T17:31:00Z",
    "ce_comexampleextension1": "value",
    "ce_comexampleothervalue": "5",
}
XML = b'<much wow="xml"/>'


def read(envelope: object, content_type: str = wire.CLOUDEVENTS_JSON) -> Message:
    payload = envelope if isinstance(envelope, bytes) else json.dumps(envelope).encode()
    return unwrap(
        Message(id="x", topic="t", payload=payload, metadata={wire.CONTENT_TYPE: content_type})
    )


def message(payload: bytes | None, **metadata: str) -> Message:
    return Message(id="A234-1234-1234", topic="t", payload=payload, metadata=metadata)


class TestJsonFormat:
    """formats/json-format.md, sections 2 to 4."""

    def test_data_that_is_a_string(self) -> None:
        # Section 3.2, the first example: XML as a JSON string.
        got = read({**ATTRIBUTES, "datacontenttype": "application/xml", "data": XML.decode()})
        assert got.id == "A234-1234-1234"
        assert got.payload == XML
        assert got.metadata == {**METADATA, "content-type": "application/xml"}

    def test_data_that_is_an_object(self) -> None:
        data = {"appinfoA": "abc", "appinfoB": 123, "appinfoC": True}
        got = read({**ATTRIBUTES, "datacontenttype": "application/json", "data": data})
        assert json.loads(got.payload or b"") == data
        assert got.metadata == {**METADATA, "content-type": "application/json"}

    @pytest.mark.parametrize("data", ["text", 5, 1.5, True, [1], None])
    def test_any_json_is_data(self, data: Any) -> None:
        # Section 3.1.1: without datacontenttype the data are JSON.
        got = read({**ATTRIBUTES, "data": data})
        assert json.loads(got.payload or b"") == data
        assert got.metadata["content-type"] == "application/json"

    def test_base64(self) -> None:
        binary = {"datacontenttype": "application/vnd.apache.thrift.binary"}
        got = read({**ATTRIBUTES, **binary, "data_base64": "AAEC/w=="})
        assert got.payload == b"\x00\x01\x02\xff"

    def test_without_data(self) -> None:
        assert read(ATTRIBUTES).payload is None

    def test_null_is_unset(self) -> None:
        # Section 2.5, `subject` in the example of unset attributes.
        got = read({**ATTRIBUTES, "subject": None, "datacontenttype": None, "data_base64": None})
        assert "ce_subject" not in got.metadata
        assert got.payload is None

    @pytest.mark.parametrize("name", ["id", "source", "type", "specversion"])
    @pytest.mark.parametrize("value", [None, "", 5])
    def test_required_attributes_are_required(self, name: str, value: object) -> None:
        with pytest.raises(DecodeError, match=name):
            read({**ATTRIBUTES, name: value})

    @pytest.mark.parametrize(
        "envelope",
        [
            b"",
            b"[]",
            b"null",
            b"\xff",
            b"[" * 100_000,
            {**ATTRIBUTES, "specversion": "0.3"},
            {**ATTRIBUTES, "datacontenttype": 5},
            {**ATTRIBUTES, "data_base64": "!"},
            {**ATTRIBUTES, "data_base64": 5},
            {**ATTRIBUTES, "data": 1, "data_base64": "AA=="},
        ],
        ids=str,
    )
    def test_what_is_no_envelope(self, envelope: object) -> None:
        with pytest.raises(DecodeError) as failure:
            read(envelope)
        assert "AA==" not in str(failure.value)

    def test_types_of_extensions(self) -> None:
        # Section 2.2: a boolean is a JSON boolean, an integer a number.
        got = read({**ATTRIBUTES, "flag": True, "count": -5})
        assert (got.metadata["ce_flag"], got.metadata["ce_count"]) == ("true", "-5")

    @pytest.mark.parametrize(
        ("content_type", "structured"),
        [
            ("application/cloudevents+json", True),
            ("application/cloudevents+json; charset=utf-8", True),
            ("Application/CloudEvents+JSON", True),
            ("application/cloudevents-batch+json", True),
            ("application/json", False),
            ("application/x-cloudevents", False),
            ("", False),
        ],
    )
    def test_the_content_type_reports_the_mode(self, content_type: str, structured: bool) -> None:
        assert is_structured(content_type) is structured

    @pytest.mark.parametrize(
        "other", ["application/cloudevents-batch+json", "application/cloudevents+avro"]
    )
    def test_formats_that_are_not_read_are_named(self, other: str) -> None:
        with pytest.raises(DecodeError, match="is not supported"):
            read(ATTRIBUTES, other)

    def test_what_is_written(self) -> None:
        written = wrap(
            message(
                b"\x00\xff", **METADATA, **{"content-type": "application/protobuf", "color": "red"}
            )
        )
        assert written.metadata == {"content-type": "application/cloudevents+json", "color": "red"}
        expected = {**ATTRIBUTES, "comexampleothervalue": "5"}
        assert json.loads(written.payload or b"") == {
            **expected,
            "datacontenttype": "application/protobuf",
            "data_base64": "AP8=",
        }
        as_json = wrap(
            message(b'{"a": 1}', **METADATA, **{"content-type": "application/vnd.x+json"})
        )
        assert json.loads(as_json.payload or b"")["data"] == {"a": 1}
        assert "data" not in json.loads(wrap(message(None, **METADATA)).payload or b"")


KAFKA_EXAMPLE = {  # kafka-protocol-binding.md, 3.2.5
    "ce_specversion": "1.0",
    "ce_type": "com.example.someevent",
    "ce_source": "/mycontext/subcontext",
    "ce_id": "1234-1234-1234",
    "ce_time": "2018-04-05T03:56:24Z",
    "content-type": "application/avro",
}
AMQP_EXAMPLE = {  # amqp-protocol-binding.md, 3.1.4
    "cloudEvents:specversion": "1.0",
    "cloudEvents:type": "com.example.someevent",
    "cloudEvents:source": "/mycontext/subcontext",
    "cloudEvents:id": "1234-1234-1234",
    "cloudEvents:time": "2018-04-05T03:56:24Z",
    "content-type": "application/avro",
}
NATS_EXAMPLE = {  # nats-protocol-binding.md, 3.1.3
    "ce-specversion": "1.0",
    "ce-type": "com.example.someevent",
    "ce-source": "/mycontext/subcontext",
    "ce-id": "1234-1234-1234",
    "ce-time": "2018-04-05T03:56:24Z",
    "ce-datacontenttype": "application/avro",
}
HTTP_EXAMPLE = {  # http-protocol-binding.md, 3.1.4
    "ce-specversion": "1.0",
    "ce-type": "com.example.someevent",
    "ce-time": "2018-04-05T03:56:24Z",
    "ce-id": "1234-1234-1234",
    "ce-source": "/mycontext/subcontext",
    "Content-Type": "application/avro",
}


class TestBindings:
    @pytest.mark.parametrize(
        ("binding", "example"),
        [(KAFKA, KAFKA_EXAMPLE), (AMQP, AMQP_EXAMPLE), (NATS, NATS_EXAMPLE), (HTTP, HTTP_EXAMPLE)],
        ids=["kafka", "amqp", "nats", "http"],
    )
    def test_the_example_in_binary_mode(self, binding: Binding, example: dict[str, str]) -> None:
        id, metadata = binding.read(example.items())
        assert id == "1234-1234-1234"
        assert metadata == {
            "ce_specversion": "1.0",
            "ce_type": "com.example.someevent",
            "ce_source": "/mycontext/subcontext",
            "ce_time": "2018-04-05T03:56:24Z",
            "content-type": "application/avro",
        }
        written = dict(binding.headers(id, metadata))
        # A `:` in a name is not allowed everywhere, so it is `_` that is written.
        expected = {name.replace("cloudEvents:", "cloudEvents_"): example[name] for name in example}
        assert {name.lower(): text for name, text in written.items()} == {
            name.lower(): text for name, text in expected.items()
        }

    @pytest.mark.parametrize(
        ("text", "encoded"),
        [  # http-protocol-binding.md, 3.1.3.2, and its rules
            ("Euro € 😀", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
            ('"', "%22"),
            ("100%", "100%25"),
            ("line\nbreak", "line%0Abreak"),
            ("/plain?a=b&c=~!'()*", "/plain?a=b&c=~!'()*"),
        ],
    )
    def test_percent_encoding(self, text: str, encoded: str) -> None:
        for binding in (HTTP, NATS):
            written = dict(binding.headers("1", {"ce_subject": text}))
            assert written["ce-subject"] == encoded
            assert binding.read(written.items())[1]["ce_subject"] == text
        wire_headers = nats_headers.encode(
            Message(id=text, topic="t", payload=b"", metadata={"ce_subject": text})
        )
        assert wire_headers["ce-subject"] == wire_headers["ce-id"] == encoded
        again = nats_headers.decode("t", b"", block(wire_headers))
        assert (again.id, again.metadata["ce_subject"]) == (text, text)
        for binding in (KAFKA, AMQP):  # UTF-8 as it is
            assert text in dict(binding.headers("1", {"ce_subject": text})).values()

    @pytest.mark.parametrize(
        ("header", "text"),
        [
            ('"quoted \\"text\\""', 'quoted "text"'),  # 3.1.3.2: double quotes are taken off
            ("%E2%82%AC", "€"),
            ("%e2%82%ac", "€"),
            ("100% sure", "100% sure"),  # encodes nothing, so nothing is decoded
            ("%FF", "\ufffd"),  # no UTF-8
        ],
    )
    def test_what_others_encode(self, header: str, text: str) -> None:
        for binding in (HTTP, NATS):
            assert binding.read([("ce-subject", header)])[1]["ce_subject"] == text
        received = nats_headers.decode("t", b"", block({"ce-subject": header}))
        assert received.metadata["ce_subject"] == text

    def test_names_of_http_and_nats_compare_without_case(self) -> None:
        for binding in (HTTP, NATS):
            headers = [("Ce-Id", "1"), ("CE-Type", "a"), ("content-TYPE", "text/plain")]
            assert binding.read(headers) == ("1", {"ce_type": "a", "content-type": "text/plain"})

    def test_a_structured_content_type_wins_over_an_attribute(self) -> None:
        headers = [
            ("Content-Type", "application/cloudevents+json"),
            ("ce-datacontenttype", "application/json"),
        ]
        for order in (headers, headers[::-1]):
            assert NATS.read(order)[1]["content-type"] == "application/cloudevents+json"

    @pytest.mark.parametrize("binding", [KAFKA, AMQP, NATS, HTTP])
    def test_beside_an_envelope_there_are_no_attributes(self, binding: Binding) -> None:
        headers = dict(binding.headers("1", wrap(message(b"x", **METADATA)).metadata))
        assert not [name for name in headers if name.startswith(binding.prefix)]
        assert binding.read(headers.items())[0] == "1"


class TestEvents:
    """spec.md: attributes and their types."""

    @pytest.mark.parametrize("lacking", ["ce_type", "ce_source", "ce_specversion"])
    def test_required_attributes_are_required(self, lacking: str) -> None:
        metadata = {name: text for name, text in METADATA.items() if name != lacking}
        with pytest.raises(DecodeError, match=lacking[3:]):
            CloudEvent.of(message(b"{}", **metadata))

    @pytest.mark.parametrize(
        ("text", "time"),
        [
            ("2018-04-05T17:31:00Z", datetime(2018, 4, 5, 17, 31, tzinfo=UTC)),
            ("2018-04-05t17:31:00z", datetime(2018, 4, 5, 17, 31, tzinfo=UTC)),
            (
                "2018-04-05T17:31:00.123456789+02:00",
                datetime(2018, 4, 5, 17, 31, 0, 123456, timezone(timedelta(hours=2))),
            ),
            ("2018-04-05T17:31:00", None),  # RFC 3339 wants an offset
            ("yesterday", None),
            ("", None),
        ],
    )
    def test_time_is_optional_and_read_leniently(self, text: str, time: datetime | None) -> None:
        assert CloudEvent.of(message(b"{}", **{**METADATA, "ce_time": text})).time == time

    def test_time_is_written_by_rfc_3339(self) -> None:
        for time in (
            datetime(2018, 4, 5, 17, 31, tzinfo=timezone(timedelta(hours=2))),
            datetime(2018, 4, 5),
        ):
            event = CloudEvent(type="a", source="/b", time=time)
            text = event.message("t").metadata["ce_time"]
            assert text.endswith("Z")
            assert datetime.fromisoformat(text) == time.astimezone(UTC)

    def test_extensions(self) -> None:
        event = CloudEvent(
            type="a", source="/b", extensions={"flag": False, "count": 5, "text": "x"}
        )
        metadata = event.message("t").metadata
        assert [metadata[f"ce_{name}"] for name in ("flag", "count", "text")] == ["false", "5", "x"]
        again = CloudEvent.of(message(b"{}", **metadata))
        assert again.extensions == {"flag": "false", "count": "5", "text": "x"}

    @pytest.mark.parametrize(
        "name", ["Upper", "with_underscore", "with-dash", "", "id", "data", "datacontenttype"]
    )
    def test_names_that_are_none(self, name: str) -> None:
        with pytest.raises(ValueError, match="extension"):
            CloudEvent(type="a", source="/b", extensions={name: "x"})

    def test_headers_that_are_no_attributes_harm_nothing(self) -> None:
        odd = {"ce_Upper": "x", "ce_with_underscore": "y", "ce_datacontenttype": "text/plain"}
        event = CloudEvent.of(message(b"{}", **METADATA, **odd))
        assert set(event.extensions) == {"comexampleextension1", "comexampleothervalue"}
        assert event.metadata == {"ce_Upper": "x", "ce_with_underscore": "y"}

    @pytest.mark.parametrize("field", ["id", "type", "source"])
    def test_empty_is_missing(self, field: str) -> None:
        with pytest.raises(ValueError, match=field):
            CloudEvent(**cast("Any", {"type": "a", "source": "/b", "id": "1", field: ""}))
