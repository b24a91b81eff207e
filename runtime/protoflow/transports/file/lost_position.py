"""The position of a group is not in its topic any more: retention, or a disk that lost data."""

from __future__ import annotations

import logging

from protoflow.error_codes import POSITION_LOST
from protoflow.errors import TransportError
from protoflow.transport.interface import SubscriptionSettings, TransportSettings
from protoflow.transports.file.group_state import GroupState
from protoflow.transports.file.log_reader import LogReader

_log = logging.getLogger("protoflow.transports.file")


def verify(
    settings: TransportSettings,
    reader: LogReader,
    state: GroupState,
    subscription: SubscriptionSettings,
) -> None:
    """Checks that the topic still has what the group has read last and what it has not settled.
    Raises TransportError."""
    first, end = reader.first(), reader.end()
    if state.low < first <= state.cursor:
        reason = f"messages before position {first} are not kept any more"
        _check_policy(settings, subscription, reason)
        gone = [each for each in state.entries if each < first]
        state.change("ack", gone)
        _warn(subscription, reason, state)
    if state.cursor < first:
        reason = f"messages before position {first} are not kept any more"
        go_on(settings, reader, state, subscription, reason)
    elif state.cursor > end:
        reason = f"the topic ends at {end}, before the position {state.cursor} of the group"
        go_on(settings, reader, state, subscription, reason)
    elif state.time and not _has_last(reader, state, end):
        reason = f"another message than before ends at the position {state.cursor} of the group"
        go_on(settings, reader, state, subscription, reason)


def _has_last(reader: LogReader, state: GroupState, end: int) -> bool:
    """Whether what was read last still ends at the position. It may be damaged by now, or removed;
    then the position is right if it is the end, or a whole record follows."""
    if (before := reader.previous(state.cursor)) is not None:
        return before.time == state.time
    following = reader.read(state.cursor, 1)
    return following[0].damage is None if following else state.cursor == end


def go_on(
    settings: TransportSettings,
    reader: LogReader,
    state: GroupState,
    subscription: SubscriptionSettings,
    reason: str,
) -> None:
    """Moves the group as `on_lost_position` says. Raises TransportError if it says stop."""
    _check_policy(settings, subscription, reason)
    latest = settings.on_lost_position == "latest"
    position = reader.end() if latest else reader.first()
    state.change("move", position, reader.sequence_before(position))
    _warn(subscription, reason, state)


def _check_policy(
    settings: TransportSettings, subscription: SubscriptionSettings, reason: str
) -> None:
    if settings.on_lost_position == "stop" and not subscription.broadcast:
        raise TransportError(
            f"the position of group {subscription.group} in topic {subscription.topic} is lost:"
            f" {reason}; set on_lost_position to earliest or latest to go on",
            code=POSITION_LOST,
        )


def _warn(subscription: SubscriptionSettings, reason: str, state: GroupState) -> None:
    _log.warning(
        "the position of a group was lost",
        extra={"subscription": subscription.name, "reason": reason, "position": state.cursor},
    )
