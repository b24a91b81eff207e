"""The interface for generated modules: everything that they import from the runtime.

A contract level counts breaking changes of this module. The runtime may be newer than a generated
module, but not older; it supports all earlier levels.
"""

from __future__ import annotations

from protoflow.context import Context
from protoflow.contract.spec import (
    BatchPolicy,
    DeadLetterPolicy,
    DeliveryPolicy,
    Effects,
    Encoding,
    FileSpec,
    MessageSpec,
    MethodSpec,
    OnExhausted,
    Ordering,
    ProducerSpec,
    PublicationSpec,
    RetryPolicy,
    ServiceSpec,
    Start,
    UnhandledTypes,
    messages_by_name,
)
from protoflow.errors import GencodeError
from protoflow.handler import Batch, Handler, HandlerSync
from protoflow.output import Messages, Output, Result, Results, SyncResults
from protoflow.producer import (
    Producer,
    ProducerSync,
    Publish,
    Publisher,
    PublishMany,
    PublishManySync,
    PublishSync,
    SyncPublisher,
    consumed_by,
    events,
    own_topic,
)
from protoflow.sync_context import SyncContext

__all__ = [
    "Batch",
    "BatchPolicy",
    "Context",
    "DeadLetterPolicy",
    "DeliveryPolicy",
    "Effects",
    "Encoding",
    "FileSpec",
    "Handler",
    "HandlerSync",
    "MessageSpec",
    "Messages",
    "MethodSpec",
    "OnExhausted",
    "Ordering",
    "Output",
    "Producer",
    "ProducerSpec",
    "ProducerSync",
    "PublicationSpec",
    "Publish",
    "PublishMany",
    "PublishManySync",
    "PublishSync",
    "Publisher",
    "Result",
    "Results",
    "RetryPolicy",
    "ServiceSpec",
    "Start",
    "SyncContext",
    "SyncPublisher",
    "SyncResults",
    "UnhandledTypes",
    "consumed_by",
    "events",
    "messages_by_name",
    "own_topic",
    "require",
]

#: The newest contract level that this runtime knows.
API = 1


def require(*, api: int, generator: str, source: str) -> None:
    """Checks the contract level; every generated module calls it on import.

    Args:
        api: the contract level the module was generated for.
        generator: the version of protoc-gen-protoflow that made it.
        source: its .proto file.

    Raises:
        GencodeError: this runtime is older than the module needs.
    """
    if api > API:
        raise GencodeError(
            f"the module generated from {source} by protoc-gen-protoflow {generator} needs a newer "
            f"runtime (contract level {api}, this one knows {API}); run: "
            f"pip install 'protoc-gen-protoflow>={generator}', or generate it again"
        )
