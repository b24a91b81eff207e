"""Treats the assignment of a group as a lease, which ends if heartbeats are not answered."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import RebalanceInProgressError, for_code
from aiokafka.protocol.group import HeartbeatRequest

from protoflow.transports.kafka.assignment import Assignment

_log = logging.getLogger("protoflow.transports.kafka")

#: Seconds between two unanswered queries to the group.
_ASKING_AGAIN = 0.5


class GroupLease:
    """Notes when the coordinator of the group answered last.

    aiokafka keeps an assignment until the group revokes it. But the group gives the partitions of a
    silent member to others, which then handle the same messages.
    """

    def __init__(self, consumer: AIOKafkaConsumer, group: str, session_timeout: float) -> None:
        self._consumer = consumer
        self._group = group
        self._session = session_timeout
        self._answered = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether the group may have given the partitions to other members."""
        return time.monotonic() - self._answered > self._session

    async def is_member(self) -> bool:
        """Asks the group whether it has this member. Raises KafkaError."""
        coordinator: Any = getattr(self._consumer, "_coordinator", None)
        request = HeartbeatRequest(self._group, coordinator.generation, coordinator.member_id)
        answer = await coordinator._send_req(request)
        error = for_code(answer.error_code)
        if issubclass(error, RebalanceInProgressError) or not answer.error_code:
            return True
        if getattr(error, "retriable", False):
            raise error
        return False

    async def is_member_still(self) -> bool:
        """Like `is_member`, but repeats the query until the group answers."""
        while True:
            try:
                async with asyncio.timeout(self._session):
                    return await self.is_member()
            except Exception as error:  # whatever the error is, the query is repeated
                _log.info("asking the group for its members failed", extra={"error": repr(error)})
                await asyncio.sleep(_ASKING_AGAIN)

    async def watch(
        self, assignment: Assignment, report: Callable[[str, str | None], None]
    ) -> None:
        """Gives the assignment up when the lease is over; takes it again if the group allows it.

        The group allows it if it still has this member when it answers. Runs for ever.
        """
        self._listen()
        given_up = None
        while True:
            await asyncio.sleep(self._session / 20)
            if given_up is None:
                if assignment.assigned is not None and self.is_over:
                    given_up = assignment.assigned
                    detail = f"no heartbeat was answered for {self._session:g} s"
                    report("group", detail)
                    _log.warning(
                        "no heartbeat was answered, and the partitions were given up",
                        extra={"session_timeout": self._session},
                    )
                    await assignment.give_up(drains=True)
            elif not self.is_over:
                report("group", None)
                if assignment.assigned is given_up:
                    assignment.prepare_again()
                given_up = None

    def _listen(self) -> None:
        """Records answered heartbeats, and assignments, which are also answers."""
        coordinator: Any = getattr(self._consumer, "_coordinator", None)
        beat = getattr(coordinator, "_do_heartbeat", None)
        joined = getattr(coordinator, "_on_join_complete", None)
        if beat is None or joined is None:
            self._session = float("inf")  # this version of aiokafka has another structure
            return

        async def beating() -> bool:
            begun = time.monotonic()
            answered: bool = await beat()
            if answered:
                self._answered = begun
            return answered

        async def joining(*arguments: Any) -> Any:
            self._answered = time.monotonic()
            return await joined(*arguments)

        coordinator._do_heartbeat = beating
        coordinator._on_join_complete = joining
        self._answered = time.monotonic()
