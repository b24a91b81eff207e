"""Facts about policy fields that options.proto cannot say; plugin, runtime and docs read them."""

from __future__ import annotations

from sys import float_info
from typing import Final, Literal, NamedTuple


class Limit(NamedTuple):
    """The numbers that a field takes.

    Attributes:
        least: the smallest.
        most: the largest.
        fix: what to write instead of another number.
    """

    least: float
    most: float
    fix: str

    def allows(self, value: float) -> bool:
        """Whether the field takes this number."""
        return self.least <= value <= self.most


class PolicyField(NamedTuple):
    """One field of a policy.

    Attributes:
        owner: whether each method has its own value or all methods of a subscription share one.
        limit: the numbers that it takes; None for other values.
    """

    owner: Literal["method", "subscription"]
    limit: Limit | None = None


_AT_LEAST_1 = Limit(1, float_info.max, "use at least 1")
_AT_LEAST_0 = Limit(0, float_info.max, "use at least 0")
_MORE_THAN_0 = Limit(5e-324, float_info.max, "use more than 0")
_SHARE = Limit(0, 1, "use a share from 0 to 1")

#: The fields of `DeliveryPolicy`, by path, in the order of the documentation.
DELIVERY_FIELDS: Final = {
    "ordering": PolicyField("subscription"),
    "concurrency": PolicyField("subscription", _AT_LEAST_1),
    "timeout": PolicyField("method", _MORE_THAN_0),
    "retry.max_attempts": PolicyField("method", _AT_LEAST_1),
    "retry.initial_backoff": PolicyField("method", _AT_LEAST_0),
    "retry.max_backoff": PolicyField("method", _AT_LEAST_0),
    "retry.backoff_multiplier": PolicyField("method", _AT_LEAST_1),
    "retry.jitter": PolicyField("method", _SHARE),
    "retry.max_elapsed": PolicyField("method", _MORE_THAN_0),
    "dead_letter.topic": PolicyField("method"),
    "dead_letter.on_exhausted": PolicyField("method"),
    "unhandled": PolicyField("subscription"),
    "start": PolicyField("subscription"),
    "atomic": PolicyField("subscription"),
}
#: The fields of `BatchPolicy`.
BATCH_FIELDS: Final = {
    "max_messages": PolicyField("method", _AT_LEAST_1),
    "max_wait": PolicyField("method", _MORE_THAN_0),
}
#: The fields of `DeliveryPolicy` that all methods of a subscription share.
SHARED_FIELDS: Final = tuple(
    path for path, field in DELIVERY_FIELDS.items() if field.owner == "subscription"
)
