"""The outputs of settlements as the records of a transaction."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Message, SettleResult
from protoflow.transports.kafka.errors import malformed
from protoflow.transports.kafka.record_encoder import (
    EncodedRecord,
    RecordEncoder,
    checked,
    physical_topic,
)
from protoflow.transports.kafka.transaction_queue import PendingSettlement

_log = logging.getLogger("protoflow.transports.kafka")


async def encode_outputs(
    batch: Sequence[PendingSettlement], encoder: RecordEncoder
) -> tuple[list[PendingSettlement], list[EncodedRecord]]:
    """Encodes outputs; a settlement with an output that is refused gets that result and is
    left out."""
    accepted: list[PendingSettlement] = []
    records: list[EncodedRecord] = []
    for work in batch:
        try:
            encoded = [await _encode(message, encoder) for message in work.outputs]
        except PublishRefusedError:
            work.ended(SettleResult.REFUSED)
        except Exception as error:
            _log.info("an output must wait", extra={"error": repr(error)})
            work.ended(SettleResult.UNKNOWN)
        else:
            accepted.append(work)
            records += encoded
    return accepted, records


async def _encode(message: Message, encoder: RecordEncoder) -> EncodedRecord:
    topic = physical_topic(message.topic)
    await encoder.learn(topic)
    try:
        return checked(encoder.encode(message, topic))
    except PublishError:
        raise
    except Exception as error:  # neither bytes nor text: the others must go on
        raise malformed(error, topic) from error
