"""Selects dead letters of a scan, by id and by a filter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence

from protoflow import wire
from protoflow.dataclass_record import dataclass_record
from protoflow.errors import DeadLetterNotFoundError
from protoflow.transport.dead_letters import DeadLetterRecord, DeadLetterScan

#: The number of records in memory at once while all are read.
PORTION = 100
#: The number of ids that an error names.
_MOST_IN_TEXT = 10


@dataclass_record
class DeadLetterFilter:
    """Selects dead letters; all given conditions must hold.

    Attributes:
        error_class: the class of the cause, as in `pf_error_class`.
        error_type: the name of the exception.
        handler: the full name of the handler that failed.
        message_type: the full name of the message's type.
        since: dead-lettered at this time or later, in seconds since the epoch.
        until: dead-lettered before this time.
        key: the key of the message; text is encoded as UTF-8.
        group: the group that failed, namespace included.
    """

    error_class: str | None = None
    error_type: str | None = None
    handler: str | None = None
    message_type: str | None = None
    since: float | None = None
    until: float | None = None
    key: str | bytes | None = None
    group: str | None = None

    def matches(self, record: DeadLetterRecord) -> bool:
        """Whether all conditions hold for a record."""
        key = self.key.encode() if isinstance(self.key, str) else self.key
        metadata = record.message.metadata
        return (
            (self.since is None or record.time >= self.since)
            and (self.until is None or record.time < self.until)
            and (key is None or record.message.key == key)
            and all(
                wanted is None or metadata.get(name) == wanted
                for name, wanted in (
                    (wire.PF_ERROR_CLASS, self.error_class),
                    (wire.PF_ERROR_TYPE, self.error_type),
                    (wire.PF_HANDLER, self.handler),
                    (wire.CE_TYPE, self.message_type),
                    (wire.PF_GROUP, self.group),
                )
            )
        )


async def selected(
    scan: DeadLetterScan, topic: str, ids: Collection[str] | None, filter: DeadLetterFilter | None
) -> AsyncIterator[Sequence[DeadLetterRecord]]:
    """Yields the selected records, in portions.

    Raises:
        DeadLetterNotFoundError: no dead letter has one of the ids; it is raised before the first
            portion.
    """
    found: list[DeadLetterRecord] = []
    wanted = frozenset(ids or ())
    missing = set(wanted)
    while records := await scan.take(PORTION):
        if ids is not None:
            records = [each for each in records if each.message.id in wanted]
            missing.difference_update(each.message.id for each in records)
        if filter is not None:
            records = [each for each in records if filter.matches(each)]
        if ids is not None:
            found += records
        elif records:
            yield records
    if missing:
        raise not_found(topic, missing)
    for start in range(0, len(found), PORTION):
        yield found[start : start + PORTION]


def not_found(topic: str, ids: Collection[str]) -> DeadLetterNotFoundError:
    """Returns the error for ids without a dead letter."""
    named = ", ".join(sorted(ids)[:_MOST_IN_TEXT])
    more = f" and {len(ids) - _MOST_IN_TEXT} more" if len(ids) > _MOST_IN_TEXT else ""
    return DeadLetterNotFoundError(f"no dead letter {named}{more} in {topic}")
