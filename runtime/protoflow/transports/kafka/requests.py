"""Protocol requests in versions that aiokafka does not have.

If a broker does not know the version, aiokafka raises IncompatibleBrokerVersion or
NotImplementedError, and does not send the request. Callers catch both and do without it.
"""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

from aiokafka.protocol.admin import CreateTopicsRequest_v3, CreateTopicsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)


class _Uuid(AbstractType[str]):  # type: ignore[misc]  # aiokafka is not typed
    """Sixteen bytes, shown as Kafka shows them."""

    @classmethod
    def encode(cls, value: str) -> bytes:
        return base64.urlsafe_b64decode(value + "==") if value else bytes(16)

    @classmethod
    def decode(cls, data: BytesIO) -> str:
        raw = data.read(16)
        return base64.urlsafe_b64encode(raw).decode().rstrip("=") if any(raw) else ""


class _MetadataResponse(Response):  # type: ignore[misc]  # aiokafka is not typed
    API_KEY = 3  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]  # as aiokafka's
    API_VERSION = 12  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]  # as aiokafka's
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _MetadataRequest(RequestStruct):  # type: ignore[misc]  # aiokafka is not typed
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields)
            ),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class TopicIds(Request[_MetadataRequest]):  # type: ignore[misc]  # aiokafka is not typed
    """Asks for the ids of topics (Kafka 3.1 and later)."""

    API_KEY = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_MetadataRequest]) -> _MetadataRequest:
        """See aiokafka."""
        untagged: dict[int, bytes] = {}
        topics = [("", topic, untagged) for topic in self._topics]
        return request_struct_class(topics, False, False, {})


class _CreateTopicsResponse(Response):  # type: ignore[misc]  # aiokafka is not typed
    API_KEY = 19  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]  # as aiokafka's
    API_VERSION = 4  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]  # as aiokafka's
    SCHEMA = CreateTopicsResponse_v3.SCHEMA


class _CreateTopicsRequest(RequestStruct):  # type: ignore[misc]  # aiokafka is not typed
    API_KEY = 19
    API_VERSION = 4
    RESPONSE_TYPE = _CreateTopicsResponse
    SCHEMA = CreateTopicsRequest_v3.SCHEMA


class CreateTopics(Request[_CreateTopicsRequest]):  # type: ignore[misc]  # aiokafka is not typed
    """Creates topics; -1 partitions or replicas are the broker's own defaults (Kafka 2.4)."""

    API_KEY = 19

    def __init__(self, topics: list[Any], timeout_ms: int) -> None:
        self._topics = topics
        self._timeout_ms = timeout_ms

    def build(self, request_struct_class: type[_CreateTopicsRequest]) -> _CreateTopicsRequest:
        """See aiokafka."""
        return request_struct_class(self._topics, self._timeout_ms, False)
