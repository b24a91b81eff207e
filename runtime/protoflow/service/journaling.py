"""The journal of a service: opened and closed with it, its minutes sampled meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from protoflow.clock import Clock
from protoflow.config.settings import Config
from protoflow.connection import journal_for
from protoflow.stats.handlers import Counters

if TYPE_CHECKING:
    from protoflow.journal.sampling import Sampling


class Journaling:
    """The journal of a service, if the settings name one.

    Args:
        config: the settings.
        clock: time.
        counters: sampled; what was sent is recorded where it is counted.

    Attributes:
        journal: None where the settings name none.
    """

    def __init__(self, config: Config, clock: Clock, counters: Counters) -> None:
        self.journal = journal_for(config, clock)
        self._clock = clock
        self._counters = counters
        self._sampling: Sampling | None = None
        if self.journal is not None and self.journal.successes:
            from protoflow.journal.sent_messages import JournaledMessages

            counters.sent = JournaledMessages(self.journal)

    def open(self) -> None:
        """Starts to write and to sample."""
        if self.journal is None:
            return
        from protoflow.journal.sampling import Sampling

        self.journal.open()
        self._sampling = Sampling(self.journal, self._counters.handlers, self._clock.now)
        if not self._clock.virtual:
            self._sampling.start()

    async def close(self) -> None:
        """Samples for the last time and writes what waits."""
        sampling, self._sampling = self._sampling, None
        if sampling is not None and self.journal is not None:
            sampling.stop()
            await asyncio.to_thread(self.journal.close)

    def record_action(self, action: str, subscription: str) -> None:
        """Records what an operator did to a subscription, if there is a journal."""
        if self.journal is not None:
            self.journal.record_action(action, subscription)
