"""What lies in a buffer and could be handed out: the stall watchdog asks for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protoflow.contract.spec import Ordering
from protoflow.message import Delivery, Message
from protoflow.transports.nats.jetstream.buffers import Buffer, Lease, OrderedBuffer

_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from([b"a", b"b", None]), st.sampled_from([0.0, 5.0])),
        st.tuples(st.just("take"), st.integers(0, 3), st.sampled_from([1.0, 9.0])),
        st.tuples(st.just("settle"), st.integers(0, 9), st.none()),
        st.tuples(st.just("give back"), st.integers(0, 9), st.sampled_from([0.0, 5.0])),
        st.tuples(st.just("lose"), st.integers(0, 9), st.none()),
    ),
    max_size=30,
)


def _lease(key: bytes | None, sequence: int) -> Lease:
    message = Message(id=str(sequence), topic="t", payload=b"", key=key)
    delivery = Delivery(
        message=message, shard=0, position=sequence, deliveries=1, receipt=b"%d" % sequence
    )
    return Lease(delivery, cast("Any", SimpleNamespace(shard=0, own=False)), sequence, 0.0)


@pytest.mark.parametrize("ordering", list(Ordering))
@given(steps=_STEPS, now=st.sampled_from([1.0, 9.0]))
def test_what_is_ready_is_what_would_be_taken(
    ordering: Ordering, steps: list[Any], now: float
) -> None:
    buffer: Buffer = Buffer() if ordering is Ordering.NONE else OrderedBuffer(ordering)
    every: list[Lease] = []
    handed: list[Lease] = []
    for kind, what, when in steps:
        if kind == "add":
            every.append(_lease(what, len(every) + 1))
            every[-1].due = when if ordering is not Ordering.NONE else 0.0
            buffer.add(every[-1])
        elif kind == "take":
            left: int = what

            def accept(lease: Lease) -> bool:
                nonlocal left
                left -= 1
                if left >= 0 and not lease.ended:
                    handed.append(lease)
                return left >= 0

            buffer.take(when, accept)
        elif kind == "lose" and every:
            every[what % len(every)].ended = True
        elif handed and kind in ("settle", "give back"):
            lease = handed.pop(what % len(handed))
            buffer.settled(lease)
            if kind == "give back" and ordering is not Ordering.NONE:
                lease.due = when
                buffer.add(lease)
    ready = buffer.ready(now)
    taken: list[Lease] = []

    def take_all(lease: Lease) -> bool:
        taken.append(lease)
        return True

    buffer.take(now, take_all)
    assert ready == sum(not lease.ended for lease in taken)
