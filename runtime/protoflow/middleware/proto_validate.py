"""Checks inputs against the rules of their contract."""

from __future__ import annotations

from typing import Any

from protoflow.codecs.threaded import LARGE, decode_in_thread
from protoflow.context import Context
from protoflow.contract.validation import ProtoValidator, check_of
from protoflow.message import Delivery
from protoflow.outcomes import Outcome, Unprocessable
from protoflow.pipeline import HandlerSpec, Middleware, Next


def proto_validate(validator: ProtoValidator | None = None) -> Middleware:
    """Dead-letters an input that violates a rule, with the error class validation. The encoder
    checks outputs.

    Args:
        validator: checks all messages, instead of protovalidate and the contract's rules.

    Raises:
        MissingExtraError: at start, if a type has rules and protovalidate is not installed.
            `validate = false` in the config turns the rules off.
    """

    def validate(next: Next, spec: HandlerSpec) -> Next:
        if spec.message is None or not spec.config.validate:
            return next
        check = check_of(spec.message, validator)
        if check is None:
            return next
        decode = spec.decode

        def refuse(message: Any) -> None:
            if (problem := check(message)) is not None:
                raise Unprocessable(problem)

        if spec.batched:  # the batch contains only valid messages
            spec.checks.append(refuse)
            return next

        async def run(delivery: Delivery, context: Context) -> Outcome:
            if context.message.payload is not None:
                if delivery.size > LARGE:
                    await decode_in_thread(decode, context)
                refuse(decode(context))
            return await next(delivery, context)

        return run

    return validate
