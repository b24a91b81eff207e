"""The decision after a failed run: retry after a wait, or give up."""

from __future__ import annotations

from protoflow.codecs.redaction import text_of
from protoflow.contract.spec import OnExhausted
from protoflow.errors import DecodeError, PublishRefusedError
from protoflow.message import Delivery
from protoflow.outcomes import DeadLetter, Outcome, Retry, RetryAfter, Skip
from protoflow.pipeline import HandlerSpec


class Dropped(Skip):
    """The message was given up and acknowledged, as `on_exhausted: DROP` requires."""


class Exhausted(DeadLetter):
    """The message was given up after the last attempt."""

    category = "exhausted"


class Undecodable(DeadLetter):
    """The message was given up because its payload is no message of its type."""

    category = "decode"


class Refused(DeadLetter):
    """The message was given up because the broker permanently refuses an output."""

    category = "output"


def retry_after(error: Exception, delivery: Delivery, spec: HandlerSpec) -> RetryAfter | None:
    """Returns the policy's retry after this failed run; None if there is none."""
    if isinstance(error, DecodeError | PublishRefusedError):
        return None
    policy = spec.policy.retry
    blocks = spec.policy.on_exhausted is OnExhausted.BLOCK
    if delivery.attempt >= policy.max_attempts and not blocks:
        return None
    retry = scheduled_retry(error, delivery, spec)
    if policy.max_elapsed is not None and not blocks:
        now = spec.clock.now()
        if now + retry.delay - (delivery.first_failure or now) > policy.max_elapsed:
            return None
    return retry


def scheduled_retry(error: Exception, delivery: Delivery, spec: HandlerSpec) -> RetryAfter:
    """Returns a retry with its wait, and marks it if the message blocks. Both are decided only
    here. `retry_after` decides whether there is a retry."""
    policy = spec.policy
    delay = error.delay if isinstance(error, Retry) else None
    if delay is None:
        delay = policy.retry.wait(delivery.attempt, spec.clock.random())
    retry = RetryAfter(delay, text_of(error))
    retry.blocks = (
        policy.on_exhausted is OnExhausted.BLOCK and delivery.attempt >= policy.retry.max_attempts
    )
    retry.__cause__ = (error.__cause__ or error) if isinstance(error, Retry) else error
    return retry


def given_up(error: Exception, spec: HandlerSpec) -> Outcome:
    """Returns the outcome of a message that is not retried."""
    outcome: Outcome
    if isinstance(error, DecodeError):
        outcome = Undecodable(text_of(error))
    elif isinstance(error, PublishRefusedError):
        outcome = Refused(text_of(error))
    elif spec.policy.on_exhausted is OnExhausted.DROP:
        outcome = Dropped(text_of(error))
    else:
        outcome = Exhausted(text_of(error))
    outcome.__cause__ = (error.__cause__ or error) if isinstance(error, Retry) else error
    return outcome


def as_outcome(
    error: Exception, cause: BaseException, delivery: Delivery, spec: HandlerSpec
) -> Outcome:
    """Turns an error into the outcome that retry and poison_queue give together."""
    outcome = retry_after(error, delivery, spec) or given_up(error, spec)
    if outcome.__cause__ is None:
        outcome.__cause__ = cause
    return outcome
