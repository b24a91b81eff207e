"""Contract-first, event-driven Python: the runtime of generated handlers.

Names are loaded when first used, because every annotated `_pb2` module imports this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protoflow.config.secret import Secret as Secret
    from protoflow.config.settings import Config as Config
    from protoflow.connection.connection import connect as connect
    from protoflow.connection.sync_connection import connect_sync as connect_sync
    from protoflow.context import Context as Context
    from protoflow.contract.spec import RetryPolicy as RetryPolicy
    from protoflow.errors import BatchFailed as BatchFailed
    from protoflow.errors import ProtoflowError as ProtoflowError
    from protoflow.events import CloudEvent as CloudEvent
    from protoflow.events import EventContext as EventContext
    from protoflow.handler import Batch as Batch
    from protoflow.inbox.inbox import Inbox as Inbox
    from protoflow.message import Delivery as Delivery
    from protoflow.message import Message as Message
    from protoflow.message import Settlement as Settlement
    from protoflow.outcomes import DeadLetter as DeadLetter
    from protoflow.outcomes import Done as Done
    from protoflow.outcomes import Outcome as Outcome
    from protoflow.outcomes import Retry as Retry
    from protoflow.outcomes import RetryAfter as RetryAfter
    from protoflow.outcomes import Skip as Skip
    from protoflow.outcomes import Unprocessable as Unprocessable
    from protoflow.output import Output as Output
    from protoflow.output import Result as Result
    from protoflow.output import Results as Results
    from protoflow.producer import Publisher as Publisher
    from protoflow.producer import SyncPublisher as SyncPublisher
    from protoflow.publishing.event_publisher import PublishOptions as PublishOptions
    from protoflow.service.service import Service as Service
    from protoflow.stats.handlers import ErrorCategory as ErrorCategory
    from protoflow.sync_context import SyncContext as SyncContext
    from protoflow.transport.interface import Capabilities as Capabilities
    from protoflow.transport.interface import Transport as Transport

__version__ = "0.1.0"

_HOMES = {
    "BatchFailed": "errors",
    "Batch": "handler",
    "Capabilities": "transport.interface",
    "CloudEvent": "events",
    "ErrorCategory": "stats.handlers",
    "EventContext": "events",
    "Inbox": "inbox.inbox",
    "Config": "config.settings",
    "Context": "context",
    "DeadLetter": "outcomes",
    "Delivery": "message",
    "Done": "outcomes",
    "Message": "message",
    "Outcome": "outcomes",
    "Output": "output",
    "ProtoflowError": "errors",
    "PublishOptions": "publishing.event_publisher",
    "Publisher": "producer",
    "Result": "output",
    "Results": "output",
    "Retry": "outcomes",
    "RetryAfter": "outcomes",
    "RetryPolicy": "contract.spec",
    "Secret": "config.secret",
    "Service": "service.service",
    "Settlement": "message",
    "Skip": "outcomes",
    "SyncContext": "sync_context",
    "SyncPublisher": "producer",
    "Transport": "transport.interface",
    "Unprocessable": "outcomes",
    "connect": "connection.connection",
    "connect_sync": "connection.sync_connection",
}

__all__ = [
    "Batch",
    "BatchFailed",
    "Capabilities",
    "CloudEvent",
    "Config",
    "Context",
    "DeadLetter",
    "Delivery",
    "Done",
    "ErrorCategory",
    "EventContext",
    "Inbox",
    "Message",
    "Outcome",
    "Output",
    "ProtoflowError",
    "PublishOptions",
    "Publisher",
    "Result",
    "Results",
    "Retry",
    "RetryAfter",
    "RetryPolicy",
    "Secret",
    "Service",
    "Settlement",
    "Skip",
    "SyncContext",
    "SyncPublisher",
    "Transport",
    "Unprocessable",
    "__version__",
    "connect",
    "connect_sync",
]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'protoflow' has no attribute {name!r}")
        import importlib

        value = getattr(importlib.import_module(f"protoflow.{home}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOMES})
