"""Converts contracts to modules: names, imports, and the text of every value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from protoc_gen_protoflow import __version__, docs, names
from protoc_gen_protoflow.contract import Leaves, MessageContract, MethodContract, ServiceContract
from protoc_gen_protoflow.imports import Imports
from protoc_gen_protoflow.model import (
    Delivery,
    Handler,
    Message,
    Method,
    Module,
    Producer,
    Publication,
    Sensitive,
    Setting,
    Variant,
)
from protoc_gen_protoflow.parameters import Parameters
from protoc_gen_protoflow.request import Declared, File, Request
from protoc_gen_protoflow.sensitive import SensitiveFields
from protoc_gen_protoflow.text import literal

_ASYNC = Variant(
    suffix="",
    define="async def ",
    context="_pf.Context",
    results="_pf.Results",
)
_SYNC = Variant(
    suffix="Sync",
    define="def ",
    context="_pf.SyncContext",
    results="_pf.SyncResults",
)
_SYNC_BESIDE_ASYNC = Variant(
    suffix="Sync",
    define="def ",
    context="_pf.SyncContext",
    results="_pf.SyncResults",
    shares=True,
)
_Settings: TypeAlias = tuple[tuple[Setting, ...], ...]
_VARIANTS = {"async": (_ASYNC,), "sync": (_SYNC,), "both": (_ASYNC, _SYNC_BESIDE_ASYNC)}


class ModuleBuilder:
    """Builds the module of one file."""

    def __init__(
        self, file: File, request: Request, parameters: Parameters, sensitive: SensitiveFields
    ) -> None:
        self._file = file
        self._sensitive = sensitive
        self._variants = _VARIANTS[parameters.handlers]
        self._imports = Imports(file, request, parameters)
        self._messages: dict[str, tuple[Message, Declared]] = {}
        self._deliveries: dict[_Settings, Delivery] = {}

    def build(
        self, services: Iterable[ServiceContract], messages: Iterable[MessageContract]
    ) -> Module:
        """Returns the module; files without a service and without a topic need none.

        Args:
            services: the services of the file that consume.
            messages: the messages of the file that are annotated.
        """
        services, messages = list(services), list(messages)
        own = tuple(literal(self._message(message).name) for message in messages)
        handlers = tuple(self._handler(service) for service in services)
        producers = tuple(self._service_producer(service) for service in services)
        events = [message for message in messages if message.topic is not None]
        if events:
            producers += (self._event_producer(events, producers),)
        messages_named, sensitive = self._named()
        return Module(
            source=self._file.name,
            generator=__version__,
            path=self._file.module.replace(".", "/") + "_protoflow.py",
            imports=self._imports.used(),
            messages=messages_named,
            sensitive=sensitive,
            deliveries=tuple(self._deliveries.values()),
            own_messages=own,
            handlers=handlers,
            producers=producers,
            variants=self._variants,
        )

    def _message(self, contract: MessageContract) -> Message:
        declared = contract.declared
        found = self._messages.get(declared.full_name)
        if found is None:
            message = Message(
                name=declared.full_name,
                reference=self._imports.reference(declared.file, declared.name),
                settings=tuple(Setting(name, leaf.text) for name, leaf in contract.values.items()),
                aliases=tuple(map(literal, contract.aliases)),
            )
            found = self._messages[declared.full_name] = message, declared
        return found[0]

    def _named(self) -> tuple[tuple[Message, ...], tuple[Sensitive, ...]]:
        """Returns the messages that the module names, and their sensitive fields."""
        declared = [declared for _, declared in self._messages.values()]
        fields, hiding = self._sensitive.of_module(self._file, declared)
        messages = tuple(
            message._replace(hides=True) if message.name in hiding else message
            for message, _ in self._messages.values()
        )
        sensitive = tuple(
            Sensitive(literal(name), tuple(map(literal, names))) for name, names in fields.items()
        )
        return messages, sensitive

    def _handler(self, service: ServiceContract) -> Handler:
        return Handler(
            class_name=f"{names.service_stem(service.name)}Handler",
            service=service.place.name,
            methods=tuple(self._method(method) for method in service.methods),
            doc=docs.handler(service),
        )

    def _method(self, method: MethodContract) -> Method:
        return Method(
            name=method.place.name,
            handler=names.method_name(method.rpc),
            input=self._message(method.input),
            topic=method.topic,
            group=method.group,
            delivery=self._delivery(method.delivery),
            output=self._message(method.output) if method.output else None,
            output_topic=_other_topic(method),
            batched=method.batched,
            streams=method.streams,
            batch=_settings(method.batch, ""),
            broadcast=bool(method.broadcast),
            effects=method.effects.text if method.effects else "",
            doc=docs.method(method),
        )

    def _delivery(self, leaves: Leaves) -> str:
        """Returns the variable of a delivery policy; empty if the policy sets no value."""
        if not leaves:
            return ""
        parts = tuple(_settings(leaves, prefix) for prefix in ("", "retry.", "dead_letter."))
        found = self._deliveries.get(parts)
        if found is None:
            found = Delivery(f"_delivery_{len(self._deliveries) + 1}", *parts)
            self._deliveries[parts] = found
        return found.name

    def _service_producer(self, service: ServiceContract) -> Producer:
        return Producer(
            class_name=f"{names.service_stem(service.name)}Producer",
            handler=f"{names.service_stem(service.name)}Handler",
            publications=tuple(
                Publication(
                    method=names.method_name(method.rpc),
                    message=self._message(method.input),
                    topic=method.topic,
                    doc=docs.publication(method.topic, ""),
                )
                for method in service.methods
            ),
            doc=docs.service_producer(service),
        )

    def _event_producer(
        self, messages: list[MessageContract], beside: Iterable[Producer]
    ) -> Producer:
        taken = {producer.class_name for producer in beside}
        return Producer(
            class_name=names.event_producer(self._file.name, taken),
            handler="",
            publications=tuple(
                Publication(
                    method=names.publish_name(message.declared.name),
                    message=self._message(message),
                    topic=message.topic or "",
                    doc=docs.publication(message.topic or "", docs.comment_of(message)),
                )
                for message in messages
            ),
            doc=docs.event_producer(self._file),
        )


def _other_topic(method: MethodContract) -> str:
    """Returns the topic of the output; empty if it is the topic of the message type."""
    if method.output and method.output.topic == method.output_topic:
        return ""
    return method.output_topic


def _settings(leaves: Leaves, prefix: str) -> tuple[Setting, ...]:
    return tuple(
        Setting(name, leaf.text)
        for path, leaf in sorted(leaves.items())
        if path.startswith(prefix) and "." not in (name := path.removeprefix(prefix))
    )
