"""The contract of the service cases, written as the generator would write it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar, cast

from google.protobuf.wrappers_pb2 import StringValue

from protoflow.context import Context
from protoflow.contract.spec import (
    BatchPolicy,
    DeliveryPolicy,
    MessageSpec,
    MethodSpec,
    PublicationSpec,
    RetryPolicy,
    ServiceSpec,
)
from protoflow.handler import Batch, Handler

#: Quick retries, so that no case waits for a backoff.
POLICY = DeliveryPolicy(retry=RetryPolicy(max_attempts=3, initial_backoff=0.01, jitter=0.0))
#: For a transport that loses unsettled messages, and therefore refuses retries.
ONCE = DeliveryPolicy(retry=RetryPolicy(max_attempts=1))

Work = Callable[[StringValue, Context], Awaitable[StringValue | None]]
BatchWork = Callable[[Batch[StringValue], Context], Awaitable[StringValue | None]]


class TaskHandler(Handler):
    """The base of the handlers that `task_handler` makes."""

    method: ClassVar[MethodSpec]


def publication(topic: str) -> PublicationSpec:
    """Returns the publication of tasks to a topic."""
    message = MessageSpec(
        type=StringValue.DESCRIPTOR.full_name,
        message_class=StringValue,
        topic=topic,
        partition_key="value",
    )
    return PublicationSpec(topic=topic, message=message)


def task_handler(
    work: Work | BatchWork,
    topic: str,
    group: str,
    policy: DeliveryPolicy = POLICY,
    results: str | None = None,
    batch: BatchPolicy | None = None,
) -> TaskHandler:
    """Returns a handler whose one method is `work`.

    Its results are published to the topic `results`. With `batch` the method takes batches.
    """
    method = MethodSpec(
        name=f"protoflow.testing.Tasks.{group}",
        handler="work",
        input=publication(topic).message,
        topic=topic,
        group=group,
        delivery=policy,
        batched=batch is not None,
        batch=batch or BatchPolicy(),
        publication=publication(results) if results else None,
    )
    spec = ServiceSpec(name="protoflow.testing.Tasks", methods=(method,))
    members = {
        "__protoflow_spec__": spec,
        "method": method,
        "work": staticmethod(cast("Work", work)),
    }
    handler: TaskHandler = type("Tasks", (TaskHandler,), members)()
    return handler
