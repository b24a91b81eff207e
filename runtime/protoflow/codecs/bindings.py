"""CloudEvents 1.0 in binary content mode: converts metadata to headers and back.

The names follow the protocol bindings of the CloudEvents specification, v1.0.2
(`cloudevents/bindings/*-protocol-binding.md`): Kafka `ce_`, AMQP `cloudEvents_` (and, when
reading, `cloudEvents:` and the `ce-` of Knative), NATS and HTTP `ce-` with percent-encoding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from protoflow import wire

_SPECVERSION: Final = "1.0"
_UNSAFE = re.compile(r'[^\x21-\x7e]|["%]')
_ESCAPED = re.compile(r"\\(.)")


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode(errors="replace"))


@dataclass(frozen=True, slots=True)
class Binding:
    """The headers of one protocol.

    Attributes:
        prefix: the prefix of an attribute's name.
        accepts: other prefixes that are accepted in received messages.
        content_type: the header that holds the content type.
        percent_encoded: whether attribute values are percent-encoded.
        folds_case: whether names of headers are compared without case.
    """

    prefix: str
    accepts: tuple[str, ...] = ()
    content_type: str = "content-type"
    percent_encoded: bool = False
    folds_case: bool = False

    def headers(self, id: str, metadata: Mapping[str, str]) -> list[tuple[str, str]]:
        """Returns the headers of a message, including its id and the specversion.

        With an envelope, no attributes are written: some consumers take a message with attributes
        for one in binary mode.
        """
        content_type = metadata.get(wire.CONTENT_TYPE, "")
        structured = content_type[:23].lower() == wire.CLOUDEVENTS
        if structured:
            headers = [(wire.MESSAGE_ID, id)]
        else:
            headers = [(self.prefix + "id", self._encode(id))]
            if wire.CE_SPECVERSION not in metadata:
                headers.append((self.prefix + "specversion", _SPECVERSION))
        for name, value in metadata.items():
            if name == wire.CE_ID or (structured and name == wire.MESSAGE_ID):
                continue  # the id is the message's own id
            if name.startswith(wire.CE_PREFIX):
                headers.append((self.prefix + name[3:], self._encode(value)))
            elif name == wire.CONTENT_TYPE:
                # An envelope's type is not an attribute, even if the binding maps the data's type.
                attribute = structured and self.content_type != wire.CONTENT_TYPE
                headers.append(("Content-Type" if attribute else self.content_type, value))
            else:
                headers.append((name, value))
        return headers

    def read(self, headers: Iterable[tuple[str, str]]) -> tuple[str | None, dict[str, str]]:
        """Returns the message id, if there is one, and the metadata.

        Watermill's id has priority over the CloudEvents id. Its users copy the metadata of the
        message that they handled, including an id that does not belong to the new message.
        """
        id: str | None = None
        watermill: str | None = None
        metadata: dict[str, str] = {}
        for name, value in headers:
            attribute = self._attribute(name)
            if attribute == "id":
                id = self.decode_value(value)
            elif attribute is not None:
                metadata[wire.CE_PREFIX + attribute] = self.decode_value(value)
            elif name == wire.CE_ID:  # the Go runtime's name, on any broker
                id = id or value
            elif name == wire.WATERMILL_ID:
                watermill = value
                metadata[name] = value
            elif name.lower() in (wire.CONTENT_TYPE, self.content_type):
                # If metadata has both headers, the one that names an envelope is used.
                known = metadata.get(wire.CONTENT_TYPE, "")
                if not known.lower().startswith(wire.CLOUDEVENTS):
                    metadata[wire.CONTENT_TYPE] = value
            else:
                metadata[name] = value
        return watermill or id or metadata.pop(wire.MESSAGE_ID, None), metadata

    def decode_value(self, value: str) -> str:
        """Returns the value of an attribute. Quotes and percent-encoding are removed if the binding
        uses them."""
        if not self.percent_encoded:
            return value
        if value.startswith('"') and value.endswith('"') and len(value) > 1:
            value = _ESCAPED.sub(r"\1", value[1:-1])
        return unquote(value) if "%" in value else value

    def _attribute(self, name: str) -> str | None:
        known = name.lower() if self.folds_case else name
        if known == self.content_type:
            return None
        for prefix in (self.prefix, *self.accepts):
            if known.startswith(prefix):
                return known[len(prefix) :]
        return None

    def _encode(self, value: str) -> str:
        return _UNSAFE.sub(_percent, value) if self.percent_encoded else value


KAFKA: Final = Binding("ce_")
AMQP: Final = Binding("cloudEvents_", accepts=("cloudEvents:", "ce-"))
NATS: Final = Binding(
    "ce-", content_type="ce-datacontenttype", percent_encoded=True, folds_case=True
)
HTTP: Final = Binding("ce-", percent_encoded=True, folds_case=True)
