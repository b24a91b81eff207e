"""What is registered with a service: one registration per handler method."""

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
from protoflow.errors import RegistrationError
from protoflow.handler import Handler, HandlerSync
from protoflow.registrations.shapes import shape_problem

_NOTHING = DeliveryPolicy()
_NO_BATCH = BatchPolicy()


@dataclass_record
class Registration:
    """A handler, and what its contract says. Templates are not filled yet.

    Attributes:
        name: the full name, unique in the service.
        topic: the consumed topic.
        group: the consumer group.
        call: the user's function or bound method.
        types: the message types that it handles; empty is every type.
        message: the contract of the input; None for raw handlers.
        publication: the contract of the output.
        delivery: what the contract demands.
        sync: it is a plain function, to be run in a thread.
        batched: it takes batches.
        streams: it is a generator of outputs.
        batch: how batches are gathered.
        broadcast: every process gets every message.
        effects: how often its effects show in the handler's database.
        tombstones: it takes messages without payload.
        decode: makes the handler's argument of a message; None is the protobuf codec.
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


def registrations(handler: Handler | HandlerSync) -> list[Registration]:
    """The registrations of an instance of a generated handler class.

    Raises:
        RegistrationError: it is none, or has methods that cannot be called as their rpcs say.
    """
    if isinstance(handler, type):
        raise RegistrationError(
            f"{handler.__name__} is a class; register an instance: {handler.__name__}(...)"
        )
    spec = getattr(handler, "__protoflow_spec__", None)
    if not isinstance(handler, Handler | HandlerSync) or not isinstance(spec, ServiceSpec):
        raise RegistrationError(
            f"{type(handler).__name__} is no generated handler; derive it from the class in the "
            "generated module"
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
        raise RegistrationError(problems)
    return made


def of_method(method: MethodSpec, call: Callable[..., Any], *, sync: bool) -> Registration:
    """The registration of a method of the contract that this function handles."""
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
