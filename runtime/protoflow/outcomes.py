"""The outcomes of a run, which decide how the message is settled.

Handlers raise an outcome to decide; the pipeline returns one; the scheduler applies
it. Anything else that a handler raises is retried under the policy.

    Outcome
    ├── Done                    returned, never raised: the run succeeded
    ├── Retry                   run the handler again after the policy's wait
    │   └── RetryAfter          ... after this wait
    ├── DeadLetter              give up now
    │   └── Unprocessable       ... because the message is invalid
    ├── Skip                    acknowledge the message without handling it
    └── Postpone                from middleware: the handler did not run, and will run later
"""

from __future__ import annotations

from datetime import timedelta


class Outcome(Exception):  # noqa: N818  an outcome is a decision, not an error
    """The decision about a message after a run; see the subclasses."""


class Done(Outcome):
    """The run succeeded: publish its outputs, then acknowledge."""


class Retry(Outcome):
    """Run the handler again, after the wait that the retry policy gives.

    Args:
        reason: why, for logs and for the dead letter.
    """

    #: The wait in seconds; None means the wait of the policy.
    delay: float | None = None
    #: Whether the attempts are used up, so that the message blocks instead of being dead-lettered.
    #: None until the failure policy has decided. For the runtime.
    blocks: bool | None = None

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class RetryAfter(Retry):
    """Run the handler again after this wait; it counts as a failed run.

    Args:
        delay: the wait; a number is seconds.
        reason: why, for logs and for the dead letter.
    """

    delay: float

    def __init__(self, delay: timedelta | float, reason: str = "") -> None:
        super().__init__(reason)
        seconds = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
        # The type is narrower than in Retry, because the wait is always given.
        self.delay = seconds  # pyright: ignore[reportIncompatibleVariableOverride]


class DeadLetter(Outcome):
    """Dead-letter the message now.

    Args:
        reason: why; stored in the dead letter.
    """

    #: The class of the cause, as stored in the dead letter and in statistics.
    category = "handler"

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class Unprocessable(DeadLetter):
    """Dead-letter the message now as invalid, with the error class validation."""

    category = "validation"


class Skip(Outcome):
    """Acknowledge the message without handling it.

    Args:
        reason: why, for logs.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class Postpone(Outcome):
    """Run the handler after this wait. There was no run, so no attempt is used and no run is
    counted.

    Middleware returns it, for example an open circuit breaker or a limit. A handler that
    wants to wait raises `RetryAfter`.

    Args:
        delay: the wait; a number is seconds.
        reason: why, for logs.
    """

    def __init__(self, delay: timedelta | float, reason: str = "") -> None:
        super().__init__(reason)
        self.delay = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
        self.reason = reason


#: Successful runs return this single instance.
DONE = Done()
