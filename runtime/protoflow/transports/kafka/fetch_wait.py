"""Shortens fetches that would delay the partitions which they do not ask for.

aiokafka keeps one fetch open at each broker. A fetch does not ask for partitions whose fetched
messages are still unread. If it finds no messages in the others, for example in empty retry topics,
the broker keeps it for `fetch_max_wait`. Until then aiokafka fetches nothing for the partition that
was left out: a busy topic would pause for half a second after each megabyte.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

from aiokafka import AIOKafkaConsumer

#: The wait of a fetch, as a share of the time for which the messages of a left-out partition have
#: been unread. So reading is delayed by this share at most, and a partition that rests for long
#: causes no busy polling.
_SHARE: Final = 0.1


def shorten_fetch_wait(consumer: AIOKafkaConsumer) -> None:
    """Shortens the wait of fetches while messages of other partitions are unread.

    aiokafka has no option for this, so its planning of fetches is wrapped. A version of aiokafka
    that plans in another way is not changed.
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
    """Returns the milliseconds that a fetch may wait while messages are unread.

    Messages that have just arrived are not counted, because aiokafka does not ask their broker
    until they are read.
    """
    now = time.monotonic()
    ages = [now - result._created for result in unread if not result.calculate_backoff()]
    return min(longest, int(min(ages) * _SHARE * 1000)) if ages else longest
