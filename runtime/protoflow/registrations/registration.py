"""Registrations of a service: one for each handler method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from protoflow.contract.spec import (
    BatchPolicy,
    DeliveryPolicy,
    Effects,
    MessageSpec,
    MethodSpec,
    PublicationSpec,
    ServiceSpec,
)
from protoflow.dataclass_record import dataclass_record
from protoflow.error_codes import HANDLER_FORM
from protoflow.errors import RegistrationError
from protoflow.handler import Handler, HandlerSync
from protoflow.registrations.shapes import shape_problem

_NOTHING = DeliveryPolicy()
_NO_BATCH = BatchPolicy()


@dataclass_record
class Registration:
    """A handler and its contract. Variables in names are not filled yet.

    Attributes:
        name: the full name, unique in the service.
        topic: the consumed topic.
        group: the consumer group.
        call: the user's function or bound method.
        types: the message types that it handles; empty means every type.
        message: the contract of the input; None for raw handlers.
        publication: the contract of the output.
        delivery: the delivery policy of the contract.
        sync: whether it is a plain function that runs in a thread.
        batched: whether it takes batches.
        streams: whether it is a generator of outputs.
        batch: the limits of a batch.
        broadcast: whether every process gets every message.
        effects: how often its effects are applied in the handler's database.
        tombstones: whether it takes messages without payload.
        decode: makes the handler's argument from a message; None means the protobuf codec.
        output_topic: the topic of outputs without a contract; empty: unknown, or there are none.
    """

    name: str
    topic: str
    group: str
    call: Callable[..., Any]
    types: tuple[str, ...] = ()
    message: MessageSpec | None = None
    publication: PublicationSpec | None = None
    delivery: DeliveryPolicy = _NOTHING
    sync: bool = False
    batched: bool = False
    streams: bool = False
    batch: BatchPolicy = _NO_BATCH
    broadcast: bool = False
    effects: Effects = Effects.AT_LEAST_ONCE
    tombstones: bool = False
    decode: Callable[..., Any] | None = None
    output_topic: str = ""


def published_topic(registration: Registration) -> str:
    """Returns the topic that a handler publishes to, not filled; empty if it is unknown."""
    publication = registration.publication
    return registration.output_topic if publication is None else publication.topic


def registrations(handler: Handler | HandlerSync) -> list[Registration]:
    """Returns the registrations of an instance of a generated handler class.

    Raises:
        RegistrationError: the object is not such an instance, or has methods that do not match
            their rpcs.
    """
    if isinstance(handler, type):
        raise RegistrationError(
            f"{handler.__name__} is a class; register an instance: {handler.__name__}(...)",
            code=HANDLER_FORM,
        )
    spec = getattr(handler, "__protoflow_spec__", None)
    if not isinstance(handler, Handler | HandlerSync) or not isinstance(spec, ServiceSpec):
        raise RegistrationError(
            f"{type(handler).__name__} is no generated handler; derive it from the class in the "
            "generated module",
            code=HANDLER_FORM,
        )
    sync = isinstance(handler, HandlerSync)
    made = [
        of_method(method, getattr(handler, method.handler), sync=sync) for method in spec.methods
    ]
    problems = [
        problem
        for one in made
        if (problem := shape_problem(one.name, one.call, sync=sync, streams=one.streams))
    ]
    if problems:
        raise RegistrationError(problems, code=HANDLER_FORM)
    return made


def of_method(method: MethodSpec, call: Callable[..., Any], *, sync: bool) -> Registration:
    """Returns the registration of a function that handles a method of the contract."""
    return Registration(
        name=method.name,
        topic=method.topic,
        group=method.group,
        call=call,
        types=(method.input.type, *method.input.aliases),
        message=method.input,
        publication=method.publication,
        delivery=method.delivery,
        sync=sync,
        batched=method.batched,
        streams=method.streams,
        batch=method.batch,
        broadcast=method.broadcast,
        effects=method.effects,
    )
