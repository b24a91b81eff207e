"""The middlewares, one in each module, and their default order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from protoflow.error_codes import MIDDLEWARE
from protoflow.errors import ConfigError
from protoflow.middleware.correlation_id import correlation_id, current_correlation_id
from protoflow.middleware.job_hooks import (
    JobContext,
    JobHooks,
    alerting_hooks,
    job_hooks,
    logging_hooks,
    metrics_hooks,
)
from protoflow.middleware.log_messages import log_messages
from protoflow.middleware.metrics import metrics
from protoflow.middleware.outbox import outbox
from protoflow.middleware.poison_queue import poison_queue
from protoflow.middleware.proto_validate import proto_validate
from protoflow.middleware.recoverer import recoverer
from protoflow.middleware.retry import retry
from protoflow.middleware.timeout import timeout
from protoflow.middleware.tracer import tracer
from protoflow.pipeline import Chain, Middleware, Named

if TYPE_CHECKING:
    from protoflow.contract.validation import ProtoValidator
    from protoflow.inbox import Inbox
    from protoflow.outbox import OutboxStore
    from protoflow.stats.handlers import ErrorClassifier

__all__ = [
    "Chain",
    "Dependencies",
    "JobContext",
    "JobHooks",
    "Middleware",
    "alerting_hooks",
    "correlation_id",
    "current_correlation_id",
    "default_chain",
    "job_hooks",
    "log_messages",
    "logging_hooks",
    "metrics",
    "metrics_hooks",
    "outbox",
    "poison_queue",
    "proto_validate",
    "recoverer",
    "retry",
    "timeout",
    "tracer",
]


class Dependencies(TypedDict, total=False):
    """Optional dependencies; `Service` and `default_chain` take them as keywords.

    Keys:
        tracer_provider: an OpenTelemetry tracer provider; by default the global one.
        hooks: callbacks around every run.
        validator: checks all messages, instead of protovalidate and the contract's rules.
        outbox: keeps outputs until a relay has published them.
        inbox: opens the transactions of handlers with exactly-once effects.
        error_classifier: returns the category of an error, for statistics.
    """

    tracer_provider: Any  # Any: without OpenTelemetry there is no such type
    hooks: JobHooks | None
    validator: ProtoValidator | None
    outbox: OutboxStore | None
    inbox: Inbox[Any] | None  # Any: there are several kinds of connection
    error_classifier: ErrorClassifier | None


def default_chain(dependencies: Dependencies | None = None) -> Chain:
    """Returns the default chain of a service, outermost first.

    Raises:
        ConfigError: a dependency has an unknown name.
    """
    given = dependencies or Dependencies()
    known = Dependencies.__annotations__
    if unknown := sorted(given.keys() - known.keys()):
        raise ConfigError(
            f"{', '.join(unknown)}: no such dependency; known dependencies: {', '.join(known)}",
            code=MIDDLEWARE,
        )
    return Chain(
        (
            Named("recoverer", recoverer),
            Named("correlation_id", correlation_id),
            Named("tracer", tracer(given.get("tracer_provider"))),
            Named("metrics", metrics),
            Named("log_messages", log_messages()),
            Named("poison_queue", poison_queue),
            Named("retry", retry),
            Named("job_hooks", job_hooks(given.get("hooks"))),
            Named("timeout", timeout),
            Named("proto_validate", proto_validate(given.get("validator"))),
            Named("outbox", outbox(given.get("outbox"))),
        )
    )
