"""Compares what two versions of a handler did with the same message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any, NamedTuple

from protoflow import wire
from protoflow.contract.spec import MessageSpec
from protoflow.message import Message
from protoflow.topic_replay import fields
from protoflow.topic_replay.entries import Entry, Result, Status
from protoflow.topic_replay.noise import Noise, plain_error

#: Paths that are kept for the counts by field; more are counted together.
_MOST_PATHS = 1000
_OTHERS = "(other fields)"


class Difference(NamedTuple):
    """A difference between two runs.

    Attributes:
        output: the number of the output, from 1; 0: a difference of the run itself.
        type: the CloudEvents type of the output.
        path: the field; `status`, `error.type`, `error.message` and `outputs` are the run's.
        old: the value of the first version.
        new: the value of the second version.
    """

    output: int
    type: str
    path: str
    old: Any
    new: Any


class Comparison:
    """Compares the two results of each message.

    Args:
        find: returns the contract of a CloudEvents type.
        noise: decides which differences are not reported.

    Attributes:
        fields: the number of reported differences by type and field.
        masked: the number of differences that are noise, likewise.
    """

    def __init__(self, find: Callable[[str], MessageSpec | None], noise: Noise) -> None:
        self._find = find
        self._noise = noise
        self.fields: Counter[str] = Counter()
        self.masked: Counter[str] = Counter()

    def of(self, entry: Entry) -> list[Difference]:
        """Returns the differences of a message, without noise."""
        old, new = entry.results
        if old is None or new is None or Status.NOT_RUN in (old.status, new.status):
            return []
        found = []
        runs = ((each, False) for each in _of_runs(old, new))
        for each, in_payload in (*runs, *self._of_outputs(old, new)):
            name = f"{each.type.rpartition('.')[2]}.{each.path}" if each.type else each.path
            place = "" if in_payload else each.path  # a field of the payload may be called `id`
            if self._noise.is_masked(each.type, each.path) or (
                each.output and self._noise.is_noise(place, each.old, each.new)
            ):
                _count(self.masked, name)
            else:
                _count(self.fields, name)
                found.append(each)
        return found

    def _of_outputs(self, old: Result, new: Result) -> Iterator[tuple[Difference, bool]]:
        """Yields the differences, and whether each is in the payload."""
        for number, (left, right) in enumerate(zip_longest(old.outputs, new.outputs), start=1):
            if left is None or right is None:
                kind = _type(left or right)
                names = [fields.ABSENT if each is None else each.topic for each in (left, right)]
                yield Difference(number, kind, "topic", names[0], names[1]), False
            elif left.metadata != right.metadata or not _is_same(left, right):
                yield from self._of_fields(number, left, right)

    def _of_fields(
        self, number: int, left: Message, right: Message
    ) -> Iterator[tuple[Difference, bool]]:
        kinds = _type(left), _type(right)
        if kinds[0] != kinds[1]:
            yield Difference(number, kinds[0], "type", *kinds), False
            return
        # An equal payload is not decoded: most outputs differ only in the time of their event.
        same = left.payload == right.payload
        trees = [fields.tree_of(each, self._find, payload=not same) for each in (left, right)]
        for path, old, new, in_payload in fields.differences(trees[0], trees[1]):
            yield Difference(number, kinds[0], path, old, new), in_payload


def _of_runs(old: Result, new: Result) -> Iterator[Difference]:
    pairs = {
        "status": (str(old.status), str(new.status)),
        "error.type": (old.error_type, new.error_type),
        "error.message": (plain_error(old.error_text), plain_error(new.error_text)),
        "outputs": (len(old.outputs), len(new.outputs)),
    }
    for path, (left, right) in pairs.items():
        if left != right:
            yield Difference(0, "", path, left, right)


def _is_same(left: Message, right: Message) -> bool:
    """Whether two outputs with equal metadata are equal."""
    return (
        left.payload == right.payload
        and left.id == right.id
        and left.key == right.key
        and left.topic == right.topic
        and left.delay == right.delay
    )


def _type(message: Message | None) -> str:
    return "" if message is None else message.metadata.get(wire.CE_TYPE, "")


def _count(counts: Counter[str], name: str) -> None:
    counts[name if name in counts or len(counts) < _MOST_PATHS else _OTHERS] += 1
