"""Batches: how messages are gathered, and the context of a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from protoflow.context import Context, OutputEncoder
from protoflow.contract.spec import BATCH_MESSAGES, BATCH_WAIT, BatchPolicy, PublicationSpec
from protoflow.error_codes import ARGUMENT, coded
from protoflow.message import Delivery, Message
from protoflow.output import AnyOutput

J = TypeVar("J")


class BatchContext(Context):
    """The context of a whole batch; `items` has one for each message.

    An output that names its input (`Output(..., caused_by=message)`) inherits from it, and is
    dropped when that input fails.
    """

    __slots__ = ("_found", "_places", "causes", "items")

    def __init__(
        self, items: Sequence[Context], delivery: Delivery, handler: str, group: str,
        encode: OutputEncoder,
    ) -> None:  # fmt: skip
        attempt = max(item.attempt for item in items)
        super().__init__(delivery, items[0].message, attempt, handler, group, encode)
        self.items = tuple(items)
        #: The index of the input for each output; None means the whole batch.
        self.causes: list[int | None] = []
        # Keyed by object identity, because the items keep their messages alive.
        self._places: dict[int, int] = {}
        # The last output and its index, which is needed several times.
        self._found: tuple[AnyOutput | None, int | None] = (None, None)

    def cause_of(self, output: AnyOutput) -> Message:
        """Returns the input that the output names, or the first message of the batch."""
        return self.items[self._index(output) or 0].message

    def add_output(self, publication: PublicationSpec, output: AnyOutput) -> str:
        """Keeps one output until the run succeeds, and returns its id."""
        id = super().add_output(publication, output)
        self.causes.append(self._index(output))
        return id

    def keep(self, message: Message) -> None:
        """Keeps a raw message until the run succeeds; for the runtime."""
        super().keep(message)
        self.causes.append(None)

    def take_outputs(self) -> list[Message]:
        """Returns the outputs so far, including those of the contexts of single items."""
        return [message for _cause, message in self.take_caused()]

    def take_caused(self) -> list[tuple[int | None, Message]]:
        """Returns the same outputs with the index of their input; None means the whole batch."""
        caused = list(zip(self.causes, super().take_outputs(), strict=True))
        self.causes = []
        for index, item in enumerate(self.items):
            if item.outputs:
                caused += [(index, message) for message in item.take_outputs()]
        return caused

    def restart(self) -> None:
        """Forgets everything that the run has published, including through the items' contexts."""
        super().restart()
        self.causes = []
        self._places = {}
        self._found = (None, None)
        for item in self.items:
            item.restart()

    def next_position(self, output: AnyOutput) -> int | None:
        """Returns the position among the outputs of its input; None if it names no input."""
        index = self._index(output)
        return None if index is None else self.items[index].next_position(output)

    def _index(self, output: AnyOutput) -> int | None:
        last, place = self._found
        if output is last:
            return place
        place = self._place(output)
        self._found = (output, place)
        return place

    def _place(self, output: AnyOutput) -> int | None:
        cause = output.caused_by
        if cause is None:
            return None
        if not self._places:
            self._places = {id(item.decoded): place for place, item in enumerate(self.items)}
        place = self._places.get(id(cause))
        if place is None:
            raise ValueError(
                coded("caused_by is not a message of this batch; pass the object itself", ARGUMENT)
            )
        return place


class Gatherer(Generic[J]):
    """Gathers the jobs of one batch handler until the batch is full or its wait has ended."""

    def __init__(self, policy: BatchPolicy, ready: Callable[[list[J]], None]) -> None:
        self._limit = policy.max_messages or BATCH_MESSAGES
        self._wait = BATCH_WAIT if policy.max_wait is None else policy.max_wait
        self._ready = ready
        self._jobs: list[J] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, job: J) -> None:
        """Adds a job; a full batch is ready at once."""
        self._jobs.append(job)
        if len(self._jobs) >= self._limit:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._wait, self.flush)

    def holds(self, job: J) -> bool:
        """Whether the job is still being gathered."""
        return job in self._jobs

    def flush(self) -> None:
        """Makes a batch of the gathered jobs."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._jobs:
            jobs, self._jobs = self._jobs, []
            self._ready(jobs)

    def take(self) -> list[J]:
        """Removes and returns the gathered jobs."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        jobs, self._jobs = self._jobs, []
        return jobs
