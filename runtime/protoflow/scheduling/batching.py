"""Batches: how messages are gathered, and the context that a batch has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from protoflow.context import Context, OutputEncoder
from protoflow.contract.spec import BATCH_MESSAGES, BATCH_WAIT, BatchPolicy, PublicationSpec
from protoflow.message import Delivery, Message
from protoflow.output import AnyOutput

J = TypeVar("J")


class BatchContext(Context):
    """The context of a whole batch; `items` has one for each message.

    An output that names its input (`Output(..., caused_by=message)`) inherits from it, and is
    dropped when that input fails.
    """

    __slots__ = ("_places", "causes", "items")

    def __init__(
        self, items: Sequence[Context], delivery: Delivery, handler: str, group: str,
        encode: OutputEncoder,
    ) -> None:  # fmt: skip
        attempt = max(item.attempt for item in items)
        super().__init__(delivery, items[0].message, attempt, handler, group, encode)
        self.items = tuple(items)
        #: For each output the index of its input; None is the batch as a whole.
        self.causes: list[int | None] = []
        # By identity: the items keep their messages.
        self._places: dict[int, int] = {}

    def cause_of(self, output: AnyOutput) -> Message:
        """The input that the output names, else the first of the batch."""
        return self.items[self._index(output) or 0].message

    def add_output(self, publication: PublicationSpec, output: AnyOutput) -> str:
        """Keeps one output until the run ends well; its id."""
        id = super().add_output(publication, output)
        self.causes.append(self._index(output))
        return id

    def keep(self, message: Message) -> None:
        """Keeps a raw message until the run ends well; for the runtime."""
        super().keep(message)
        self.causes.append(None)

    def take_outputs(self) -> list[Message]:
        """The outputs kept so far, those of the items' own contexts included."""
        return [message for _cause, message in self.take_caused()]

    def take_caused(self) -> list[tuple[int | None, Message]]:
        """The same, each with the index of its input; None is the batch as a whole."""
        caused = list(zip(self.causes, super().take_outputs(), strict=True))
        self.causes = []
        for index, item in enumerate(self.items):
            if item.outputs:
                caused += [(index, message) for message in item.take_outputs()]
        return caused

    def restart(self) -> None:
        """Forgets what the run has published, the items' contexts included."""
        super().restart()
        self.causes = []
        self._places = {}
        for item in self.items:
            item.restart()

    def next_position(self, output: AnyOutput) -> int | None:
        """The position among the outputs of its input; None where it names none."""
        index = self._index(output)
        return None if index is None else self.items[index].next_position(output)

    def _index(self, output: AnyOutput) -> int | None:
        cause = output.caused_by
        if cause is None:
            return None
        if not self._places:
            self._places = {id(item.decoded): place for place, item in enumerate(self.items)}
        place = self._places.get(id(cause))
        if place is None:
            raise ValueError("caused_by is no message of this batch; give the object itself")
        return place


class Gatherer(Generic[J]):
    """Gathers the jobs of one batch handler until a batch is full or has waited enough."""

    def __init__(self, policy: BatchPolicy, ready: Callable[[list[J]], None]) -> None:
        self._limit = policy.max_messages or BATCH_MESSAGES
        self._wait = BATCH_WAIT if policy.max_wait is None else policy.max_wait
        self._ready = ready
        self._jobs: list[J] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, job: J) -> None:
        """Takes a job; a full batch is ready at once."""
        self._jobs.append(job)
        if len(self._jobs) >= self._limit:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._wait, self.flush)

    def holds(self, job: J) -> bool:
        """Whether the job still waits here."""
        return job in self._jobs

    def flush(self) -> None:
        """Makes what is there a batch."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._jobs:
            jobs, self._jobs = self._jobs, []
            self._ready(jobs)

    def take(self) -> list[J]:
        """What is there, which is gathered no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        jobs, self._jobs = self._jobs, []
        return jobs
