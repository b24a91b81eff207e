"""Names of subjects, streams and durables, which are valid and distinct.

    <prefix>.<topic>                              messages of a topic with one shard
    <prefix>.<topic>.=<shard>                     messages of a topic with several shards
    <prefix>.=retry.<group>.<topic>               messages that only this group gets again
    <prefix>.=retry.<group>.=mark.<topic>.<seq>   start marks of a group
    <prefix>.=retry.~replay.<group>.<topic>       replays among the messages of the topic
    <prefix>.=wait.<topic>.<unique>               schedules: messages that are not due

No topic contains `=`, so these subjects never collide with those of users. A retry is addressed
like a topic, `=retry.<group>.<topic>`. Replays to an ordered group are in the topic's stream and
in the shard of their key. No group contains `~`, and the rights that keep other clients away from
retries also keep them away from replays. NATS does not allow empty tokens in subjects, so the
token between the two dots of a derived topic is `=`. The stream of a topic is
`<prefix>-topic-<topic>`, the stream of a group's retries `<prefix>-group-<group>`; in both, `.` is
written as `_` and `_` as `=`. `~` separates a durable from its shard.
"""

from __future__ import annotations

import re
import uuid
import zlib
from itertools import count

from protoflow.contract.names import without_dots
from protoflow.contract.topic_source import TopicSource, TopicSources

#: A server takes 255 characters: prefix, role, and the name itself.
_PREFIX_LIMIT = 60
_LIMIT = 180
_RETRY = "=retry."
_REPLAY = "=retry.~replay."
_MARK = "=mark"
_WAIT = "=wait."


def tokens(topic: str) -> str:
    """Returns a topic as it appears in a subject."""
    if ".." not in topic:
        return topic
    return ".".join(token or "=" for token in topic.split("."))


#: Subjects that passed the check; the same ones are used repeatedly.
_legal: set[str] = set()
_KNOWN_SUBJECTS = 1000
_SUBJECT = re.compile(r"[^\s.*>\0]+(\.[^\s.*>\0]+)*")


def is_replays(subject: str) -> bool:
    """Whether a subject is that of replays among the messages of their topic."""
    return f".{_REPLAY}" in subject


def check(subject: str) -> None:
    """Raises ValueError for text that is not a subject, or several words of the protocol."""
    if subject in _legal:
        return
    if _SUBJECT.fullmatch(subject) is None:
        raise ValueError(f"{subject!r} cannot be a subject")
    subject.encode()
    if len(_legal) >= _KNOWN_SUBJECTS:
        _legal.clear()  # topic names can come from data, so the set is bounded
    _legal.add(subject)


class JetStreamNames:
    """The names below one prefix.

    Args:
        prefix: the prefix of all names.
        shards: the number of subjects of a topic.
        sources: the streams of other programs that topics are consumed from.
    """

    def __init__(self, prefix: str, shards: int = 1, sources: TopicSources | None = None) -> None:
        self.prefix = prefix
        self._sources = sources or TopicSources()
        self.shards = shards
        self._flat = without_dots(prefix, _PREFIX_LIMIT)
        self._unique = f"{uuid.uuid4().hex[:16]}-{{:x}}"
        self._count = count()
        self._lane = count()

    def retry_topic(self, topic: str, group: str) -> str:
        """Returns the address of a group's retries of a topic, usable as a message's topic."""
        return f"{_RETRY}{self.group_token(group)}.{topic}"

    def replay_topic(self, topic: str, group: str) -> str:
        """Returns the address of a group's replays among a topic's messages, usable as a topic."""
        return f"{_REPLAY}{self.group_token(group)}.{topic}"

    def replays(self, topic: str) -> list[str]:
        """Returns the filters for the replays of all groups of a topic, one for each shard."""
        return self.subjects(f"{_REPLAY}*.{topic}")

    def stream(self, topic: str) -> str:
        """Returns the stream of a topic, a retry address or a replay address."""
        if source := self._sources.of(topic):
            return source.name
        if topic.startswith(_REPLAY):
            topic = topic[len(_REPLAY) :].partition(".")[2]
        if topic.startswith(_RETRY):
            return f"{self._flat}-group-{topic[len(_RETRY) :].partition('.')[0]}"
        return f"{self._flat}-topic-{without_dots(topic, _LIMIT)}"

    def group_stream(self, group: str) -> str:
        """Returns the stream of a group's retries."""
        return f"{self._flat}-group-{self.group_token(group)}"

    def group_token(self, group: str) -> str:
        """Returns the group as one token of a subject and as the name of a durable."""
        return without_dots(group, _LIMIT)

    def topic_token(self, topic: str) -> str:
        """Returns the topic as the name of a durable in a group's stream."""
        return without_dots(topic, _LIMIT)

    def subjects(self, topic: str) -> list[str]:
        """Returns the subjects of a topic, one for each shard."""
        plain = f"{self.prefix}.{tokens(topic)}"
        if self.shards == 1:
            return [plain]
        return [f"{plain}.={shard}" for shard in range(self.shards)]

    def subject(self, topic: str, key: bytes | None = None) -> str:
        """Returns the subject of a message; without a key, any shard is used. Raises ValueError."""
        if self._sources and (source := self._sources.of(topic)):
            if source.subject:
                return source.subject
            raise ValueError(f"set topics.{topic!r}.source.subject to publish to {source.name}")
        plain = f"{self.prefix}.{tokens(topic)}"
        if self.shards == 1 or _is_retry(topic):
            return plain
        lane = zlib.crc32(key) if key else next(self._lane)
        return f"{plain}.={lane % self.shards}"

    def all_of(self, topic: str) -> str:
        """Returns the filter for every shard of a topic, or for its source."""
        if source := self._sources.of(topic):
            return source.subject or ">"
        plain = f"{self.prefix}.{tokens(topic)}"
        return plain if self.shards == 1 or _is_retry(topic) else f"{plain}.*"

    def schedule(self, topic: str) -> str:
        """Returns a subject for one schedule."""
        return f"{self.prefix}.{_WAIT}{tokens(topic)}.{self._unique.format(next(self._count))}"

    def schedules(self, topic: str) -> str:
        """Returns the filter for the schedules of a topic or of a retry address."""
        return f"{self.prefix}.{_WAIT}{tokens(topic)}.*"

    def is_schedules(self, subject: str) -> bool:
        """Whether a filter is for schedules."""
        return subject.startswith(f"{self.prefix}.{_WAIT}")

    def mark(self, topic: str, group: str, sequence: int | str) -> str:
        """Returns the subject of a message's start marks; its sequence names the consumer."""
        return f"{self.prefix}.{_RETRY}{self.group_token(group)}.{_MARK}.{tokens(topic)}.{sequence}"

    def source(self, topic: str) -> TopicSource | None:
        """Returns the stream of other programs that a topic is consumed from; None: its own."""
        return self._sources.of(topic)

    def consumers(self, topic: str, group: str) -> list[str]:
        """Returns the consumers with which a group consumes a topic or its source."""
        if source := self._sources.of(topic):
            return [source.consumer or self.group_token(group)]
        return self.durables(group)

    def durables(self, group: str) -> list[str]:
        """Returns the durables of a group on a topic, one for each shard."""
        token = self.group_token(group)
        if self.shards == 1:
            return [token]
        return [f"{token}~{shard}" for shard in range(self.shards)]

    def group_subjects(self, group: str) -> list[str]:
        """Returns the subjects of a group's stream: retries and marks, and schedules of retries."""
        token = self.group_token(group)
        return [f"{self.prefix}.{_RETRY}{token}.>", f"{self.prefix}.{_WAIT}{_RETRY}{token}.>"]


def _is_retry(topic: str) -> bool:
    """Whether an address is in a group's own stream, which has no shards."""
    return topic.startswith(_RETRY) and not topic.startswith(_REPLAY)
