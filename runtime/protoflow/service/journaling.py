"""The journal of a service: opened and closed with it, and sampled every minute."""

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
        counters: sampled; sent messages are recorded where they are counted.

    Attributes:
        journal: None if the settings name none.
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
        """Starts writing and sampling."""
        if self.journal is None:
            return
        from protoflow.journal.sampling import Sampling

        self.journal.open()
        self._sampling = Sampling(self.journal, self._counters.handlers, self._clock.now)
        if not self._clock.virtual:
            self._sampling.start()

    async def close(self) -> None:
        """Takes the last sample and writes the waiting entries."""
        sampling, self._sampling = self._sampling, None
        if sampling is not None and self.journal is not None:
            sampling.stop()
            await asyncio.to_thread(self.journal.close)

    def record_action(self, action: str, subscription: str) -> None:
        """Records an operator's action on a subscription, if there is a journal."""
        if self.journal is not None:
            self.journal.record_action(action, subscription)
