"""The names of all headers and attributes.

CloudEvents attributes are `ce_<attribute>` in `Message.metadata`, as CloudEvents' Kafka
binding writes them; other transports translate (see `protoflow.codecs.bindings`).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final


class Profile(enum.StrEnum):
    """The readers for whom messages are written."""

    #: Any consumer that reads CloudEvents.
    NATIVE = "native"
    #: Also Watermill and the Go runtime.
    WATERMILL = "watermill"


CE_PREFIX: Final = "ce_"
CE_ID: Final = "ce_id"
CE_TYPE: Final = "ce_type"
CE_SOURCE: Final = "ce_source"
CE_SPECVERSION: Final = "ce_specversion"
CE_SUBJECT: Final = "ce_subject"
CE_TIME: Final = "ce_time"
CE_DATASCHEMA: Final = "ce_dataschema"
CONTENT_TYPE: Final = "content-type"

CORRELATION_ID: Final = "correlation_id"
CAUSATION_ID: Final = "causation_id"
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
BAGGAGE: Final = "baggage"
#: The headers that an output inherits from its input besides the correlation id.
TRACE_CONTEXT: Final = (TRACEPARENT, TRACESTATE, BAGGAGE)

#: The id if there are no attributes: next to an envelope, which holds the attributes.
MESSAGE_ID: Final = "message_id"

PROTOBUF: Final = "application/protobuf"
JSON: Final = "application/json"
CLOUDEVENTS: Final = "application/cloudevents"
CLOUDEVENTS_JSON: Final = "application/cloudevents+json"

# Hop state uses the Go runtime's names: plain metadata, not CloudEvents attributes.
PF_ATTEMPT: Final = "pf_attempt"
PF_GROUP: Final = "pf_group"
PF_HANDLER: Final = "pf_handler"
PF_ORIGINAL_TOPIC: Final = "pf_original_topic"
PF_ORIGINAL_SOURCE: Final = "pf_original_source"
PF_ORIGINAL_SHARD: Final = "pf_original_partition"
PF_ORIGINAL_POSITION: Final = "pf_original_offset"
PF_ORIGINAL_TIME: Final = "pf_original_timestamp"
PF_FIRST_FAILURE: Final = "pf_first_failure"
PF_DUE: Final = "pf_due"
PF_REPROCESS: Final = "pf_reprocess"
PF_DEAD_LETTER: Final = "pf_dead_letter"
PF_DEAD_LETTERED_AT: Final = "pf_dead_lettered_at"
PF_DELIVERIES: Final = "pf_deliveries"
PF_ERROR_CLASS: Final = "pf_error_class"
PF_ERROR_TYPE: Final = "pf_error_type"
PF_ERROR_MESSAGE: Final = "pf_error_message"
PF_DLQ_RESOLVED: Final = "pf_dlq_resolved"
PF_MAX_ATTEMPTS: Final = "pf_max_attempts"
PF_TRACEPARENT: Final = "pf_traceparent"
PF_PREFIX: Final = "pf_"

# Headers that other programs write.
WATERMILL_ID: Final = "_watermill_message_uuid"
WATERMILL_NAME: Final = "name"
GO_SCHEMA: Final = "event_message_schema"
GO_CORRELATION_ID: Final = "pf_correlation_id"
CE_DATACONTENTTYPE: Final = "ce_datacontenttype"  # names that differ in a binding

#: CloudEvents' core attributes. `data` and `data_base64` are not attributes, but have the same
#: place in an envelope. Every other `ce_*` is an extension attribute.
CORE_ATTRIBUTES: Final = frozenset(
    {"id", "type", "source", "specversion", "subject", "time", "dataschema", "datacontenttype",
     "data", "data_base64"}
)  # fmt: skip
#: The lower-case prefixes that the bindings use for attributes.
_ATTRIBUTE_PREFIXES: Final = (CE_PREFIX, "ce-", "cloudevents_", "cloudevents:")
#: Lower-case names of broker commands and of hop state.
_ORDER_PREFIXES: Final = (
    PF_PREFIX,  # hop state of the runtime
    "nats-",  # NATS: deduplication, expectations, schedules, roll-up, time to live
    "x-opt-",  # AMQP 1.0 annotations, which RabbitMQ 4 writes
    "x-first-death-",
    "x-last-death-",
)
_BROKER_NAMES: Final = frozenset(
    {"cc", "bcc",  # RabbitMQ also publishes to these routing keys
     "x-delay", "x-death", "x-delivery-count", "x-acquired-count", "x-received-from",
     "x-stream-filter-value"}
)  # fmt: skip
#: Readers find the id, the type or the content type of a message under these names.
_IDENTITIES: Final = frozenset({CONTENT_TYPE, MESSAGE_ID, WATERMILL_ID, GO_SCHEMA})


@lru_cache(1024)
def reserved(name: str) -> bool:
    """Whether a name of metadata belongs to the runtime, to CloudEvents or to a broker.

    Such names are not in `context.metadata`, and are refused in the metadata of an output, because
    they could change the message or command the broker.
    """
    known = name.lower()
    return is_order(known) or known in _IDENTITIES or _is_core(known)


@lru_cache(1024)
def is_order(name: str) -> bool:
    """Whether a name is hop state or a broker command; such a name is never copied from data."""
    known = name.lower()
    return known in _BROKER_NAMES or known.startswith(_ORDER_PREFIXES)


def without_orders_of(
    received: Mapping[str, str], metadata: Mapping[str, str]
) -> Mapping[str, str]:
    """Returns metadata without hop state and broker commands that were copied from a received
    message."""
    return {
        name: value
        for name, value in metadata.items()
        if not (name in received and received[name] == value and is_order(name))
    }


def _is_core(name: str) -> bool:
    return any(
        name.startswith(prefix) and name[len(prefix) :] in CORE_ATTRIBUTES
        for prefix in _ATTRIBUTE_PREFIXES
    )


#: Names that passed the check before, in outputs and in raw messages.
_ALLOWED: Final[set[str]] = set()
_ALLOWED_RAW: Final[set[str]] = set()
_REMEMBERED: Final = 1024


def metadata_problem(
    metadata: Mapping[str, str], forbidden: Callable[[str], bool] = reserved
) -> str | None:
    """Returns the error in the metadata of a message to publish; None if it is valid.

    Args:
        metadata: as the caller gave it.
        forbidden: tests whether a name is refused.
    """
    harmless = _ALLOWED if forbidden is reserved else _ALLOWED_RAW
    if type(metadata) is dict and metadata.keys() <= harmless:
        try:
            if "".join(metadata.values()).isascii():
                return None  # nearly always, the same few names are used again
        except TypeError:
            pass  # the error is reported below
    if type(metadata) is not dict and not isinstance(metadata, Mapping):
        return f"metadata: {type(metadata).__name__} is no mapping of str to str"
    for name, value in metadata.items():
        if not isinstance(name, str):
            return f"metadata: the name {name!r:.80} is not text; names and values are str"
        if not isinstance(value, str):
            return (
                f"metadata {name!r:.80}: the value is {type(value).__name__}, not text; convert it "
                "with str()"
            )
        if forbidden(name):
            return f"metadata {name!r:.80}: {_why(name)}"
        if not (name.isascii() and value.isascii()) and not _is_encodable(name + value):
            return f"metadata {name!r:.80}: a lone surrogate cannot be sent; remove it"
    if len(harmless) < _REMEMBERED:
        harmless.update(metadata)
    return None


def raw_problem(id: str, metadata: Mapping[str, str]) -> str | None:
    """Returns the error in a raw message to publish; None if it is valid."""
    if not isinstance(id, str) or not _is_encodable(id):
        return "id: it must be text without lone surrogates"
    return metadata_problem(metadata, is_order) if metadata else None


def _why(name: str) -> str:
    if is_order(name):
        return (
            "the name is reserved for brokers and for retries; choose another. To copy the "
            "metadata of the input, pass context.metadata, which has no such names"
        )
    return (
        "the name is reserved, because the contract sets its value: set type, source and subject "
        "there. To copy the metadata of the input, pass context.metadata, which has no such names"
    )


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
