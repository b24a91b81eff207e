"""The names on the wire, all in one place.

CloudEvents attributes are `ce_<attribute>` in `Message.metadata`, as CloudEvents' Kafka
binding writes them; other transports translate (see `protoflow.codecs.bindings`).
"""

from __future__ import annotations

from typing import Final

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
#: What an output inherits from its input beside the correlation id; a list, on purpose.
TRACE_CONTEXT: Final = (TRACEPARENT, TRACESTATE, BAGGAGE)

#: The id where there are no attributes: beside an envelope, which holds them.
MESSAGE_ID: Final = "message_id"

PROTOBUF: Final = "application/protobuf"
JSON: Final = "application/json"
CLOUDEVENTS: Final = "application/cloudevents"
CLOUDEVENTS_JSON: Final = "application/cloudevents+json"

# Hop state, under the Go runtime's names: plain metadata, never CloudEvents attributes.
PF_ATTEMPT: Final = "pf_attempt"
PF_GROUP: Final = "pf_group"
PF_HANDLER: Final = "pf_handler"
PF_ORIGINAL_TOPIC: Final = "pf_original_topic"
PF_ORIGINAL_SHARD: Final = "pf_original_partition"
PF_ORIGINAL_POSITION: Final = "pf_original_offset"
PF_ORIGINAL_TIME: Final = "pf_original_timestamp"
PF_FIRST_FAILURE: Final = "pf_first_failure"
PF_DUE: Final = "pf_due"
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

# What others write.
WATERMILL_ID: Final = "_watermill_message_uuid"
WATERMILL_NAME: Final = "name"
GO_SCHEMA: Final = "event_message_schema"
GO_CORRELATION_ID: Final = "pf_correlation_id"
CE_DATACONTENTTYPE: Final = "ce_datacontenttype"  # where a binding has another name for it
