"""The middlewares, one a module, and their default order."""

from __future__ import annotations

from protoflow.middleware.correlation_id import correlation_id
from protoflow.middleware.metrics import metrics
from protoflow.middleware.poison_queue import poison_queue
from protoflow.middleware.recoverer import recoverer
from protoflow.middleware.retry import retry
from protoflow.middleware.timeout import timeout
from protoflow.pipeline import Chain, Middleware, Named

__all__ = [
    "Chain",
    "Middleware",
    "correlation_id",
    "default_chain",
    "metrics",
    "poison_queue",
    "recoverer",
    "retry",
    "timeout",
]


def default_chain() -> Chain:
    """The chain that a service has unless told otherwise, outermost first."""
    return Chain(
        (
            Named("recoverer", recoverer),
            Named("correlation_id", correlation_id),
            Named("metrics", metrics),
            Named("poison_queue", poison_queue),
            Named("retry", retry),
            Named("timeout", timeout),
        )
    )
