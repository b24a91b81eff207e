"""Shortens fetches that would delay the partitions which they leave out.

aiokafka keeps one fetch at each broker, and leaves out partitions with fetched messages that are
not read yet. If such a fetch finds nothing, as in the retry topics, which are mostly
empty, the broker keeps it for `fetch_max_wait`. Meanwhile the partition that was left out is
read to its end, and no more of it can be fetched: a busy topic would stand still for half a
second after each megabyte.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

from aiokafka import AIOKafkaConsumer

#: A fetch that leaves a partition out waits for this share of the time for which its messages
#: have lain unread: reading is held up by no more, and a partition that rests for long costs
#: no busy polling.
_SHARE: Final = 0.1


def shorten_fetch_wait(consumer: AIOKafkaConsumer) -> None:
    """Shortens the wait of fetches while messages of other partitions are unread.

    aiokafka has no option for this, so its planning of fetches is wrapped; an aiokafka that
    plans in another way is left alone.
    """
    fetcher: Any = getattr(consumer, "_fetcher", None)
    plan = getattr(fetcher, "_get_actions_per_node", None)
    longest = getattr(fetcher, "_fetch_max_wait_ms", None)
    if plan is None or longest is None:
        return

    def planned(assignment: Any) -> Any:
        fetcher._fetch_max_wait_ms = wait_ms(longest, fetcher._records.values())
        return plan(assignment)

    fetcher._get_actions_per_node = planned


def wait_ms(longest: int, unread: Iterable[Any]) -> int:
    """Returns how long a fetch may wait while messages are unread.

    Messages that arrived just now are not counted, because aiokafka does not ask their broker until
    they are read.
    """
    now = time.monotonic()
    ages = [now - result._created for result in unread if not result.calculate_backoff()]
    return min(longest, int(min(ages) * _SHARE * 1000)) if ages else longest
