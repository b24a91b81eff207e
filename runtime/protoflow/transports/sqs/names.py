"""Names of topics and queues, within SQS's 80 characters of `[A-Za-z0-9_-]`.

    <prefix>..<topic>                       a topic; the queue of a dead-letter topic
    <prefix>..<topic>....<group>            the queue of a group
    <prefix>..<topic>....<group>....<role>  another queue of the group

Topics and groups have at most two dots in a row, and none at their ends, so no two names ever
become equal. A dot is written as `-`, `-` as `_-`, and `_` as `__`.
"""

from __future__ import annotations

from typing import Final

from protoflow.contract.names import digest, join

_LIMIT: Final = 80
_FIFO: Final = ".fifo"
_WRITTEN: Final = str.maketrans({".": "-", "-": "_-", "_": "__"})
_APART: Final = "...."
#: Begins the `Message.topic` of a message that is for one queue; no topic contains it.
_ADDRESS: Final = "queue/"


class Names:
    """The names below one prefix.

    Args:
        prefix: the prefix.
        fifo: whether topics and the queues of groups are FIFO.
    """

    def __init__(self, prefix: str, *, fifo: bool) -> None:
        self._prefix = prefix
        self._suffix = _FIFO if fifo else ""

    def topic(self, topic: str) -> str:
        """Returns the name of the SNS topic."""
        return self._write(topic, suffix=self._suffix)

    def dead_letters(self, topic: str) -> str:
        """Returns the queue that keeps a dead-letter topic."""
        return self._write(topic)

    def group(self, topic: str, group: str) -> str:
        """Returns the queue of a group that is subscribed to the topic."""
        return self._write(topic, group, suffix=self._suffix)

    def retry(self, topic: str, group: str) -> str:
        """Returns the queue of a group's retries and replays."""
        return self._write(topic, group, "retry")

    def solo(self, topic: str, group: str) -> str:
        """Returns the queue of a group's messages that must run alone."""
        return self._write(topic, group, "solo")

    def broadcast(self, topic: str, group: str, process: str) -> str:
        """Returns the queue of one process of a broadcast group."""
        return self._write(topic, group, f"process-{process}", suffix=self._suffix)

    def _write(self, *parts: str, suffix: str = "") -> str:
        name = join(self._prefix, _APART.join(parts))
        written = name.translate(_WRITTEN)
        if len(written) + len(_FIFO) > _LIMIT:
            mark = digest(name)
            # No name contains three dots, so no name that was cut equals a complete one.
            written = f"{written[: _LIMIT - len(_FIFO) - len(mark) - 3].rstrip('-_')}---{mark}"
        return written + suffix


def address(queue: str) -> str:
    """Returns the `Message.topic` of a message that is for one queue."""
    return _ADDRESS + queue


def queue_of(topic: str) -> str | None:
    """Returns the queue that an address names; None: it is a topic."""
    return topic.removeprefix(_ADDRESS) if topic.startswith(_ADDRESS) else None
