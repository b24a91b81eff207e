"""Names of OpenTelemetry's semantic conventions for messaging, all in one place.

https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/ (1.44, development)
"""

from __future__ import annotations

from typing import Final

SYSTEM: Final = "messaging.system"
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
DESTINATION: Final = "messaging.destination.name"
PARTITION: Final = "messaging.destination.partition.id"
GROUP: Final = "messaging.consumer.group.name"
MESSAGE_ID: Final = "messaging.message.id"
CONVERSATION_ID: Final = "messaging.message.conversation_id"
BODY_SIZE: Final = "messaging.message.body.size"
BATCH_SIZE: Final = "messaging.batch.message_count"
KAFKA_OFFSET: Final = "messaging.kafka.offset"
ERROR_TYPE: Final = "error.type"
# Names of Protoflow, because the conventions have none.
HANDLER: Final = "protoflow.handler"
ATTEMPT: Final = "protoflow.attempt"
OUTCOME: Final = "protoflow.outcome"
