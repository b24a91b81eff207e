"""The schemas of this process: registered or looked up once, and remembered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from protoflow.codecs.framing import Frame
from protoflow.config.settings import Config
from protoflow.contract import topics
from protoflow.contract.spec import ProtoClass
from protoflow.errors import ConfigError, DecodeError, SchemaRegistryError
from protoflow.routing.routes import Routes
from protoflow.schema_registry.client import (
    IncompatibleError,
    NotRegisteredError,
    Registered,
    RegistryClient,
)
from protoflow.schema_registry.message_names import message_name
from protoflow.schema_registry.options import (
    IdPlace,
    TopicOptions,
    options_of,
    topic_options,
)
from protoflow.schema_registry.requests import Requests
from protoflow.schema_registry.schema import path_of, schema_of

#: A missing schema is asked for again after this time, because registries replicate.
_ABSENT: Final = 2.0
#: The number of topics and of schemas that are remembered; both can come from data.
_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Framing:
    """The frame of all messages of one type in one topic.

    Attributes:
        place: where it is written.
        data: the frame.
    """

    place: IdPlace
    data: bytes


class SchemaRegistry:
    """Registers schemas of outputs, and finds schemas of inputs.

    Args:
        config: the settings; they name a registry.
        random: returns a number from 0 up to 1, for the waits.

    Raises:
        ConfigError: with every mistake in the options.
    """

    def __init__(self, config: Config, random: Callable[[], float]) -> None:
        registry = config.registry
        if registry is None:
            raise ConfigError("no schema registry is set: set schema_registry to its URL")
        self.options = options_of(registry)
        self.client = RegistryClient(registry.url, self.options)
        self._namespace = f"{config.namespace}.." if config.namespace else ""
        self._by_topic = {
            topics.fill(topic, config.variables)[0]: topic_options(
                topic, self.options, route.schema_registry
            )
            for topic, route in config.routes["topics"].items()
        }
        _check_places(config, self.options, self._by_topic)
        self._framings: dict[tuple[str, str], Framing] = {}
        self._references: dict[str, Registered] = {}
        self._names: dict[Frame, str] = {}
        #: Until when the registry is not asked again, the text, and whether it is `temporary`.
        self._absent: dict[Frame, tuple[float, str, bool]] = {}
        self._requests = Requests(self.options.longest_wait, random)

    def of_topic(self, topic: str) -> TopicOptions:
        """Returns the options of a topic."""
        return self._by_topic.get(topic.removeprefix(self._namespace), self.options)

    # Outputs.

    def framing(self, topic: str, message_class: ProtoClass) -> Framing | None:
        """Returns the frame of a type in a topic, if it is known."""
        return self._framings.get((topic, message_class.DESCRIPTOR.full_name))

    async def prepare(self, topic: str, message_class: ProtoClass) -> Framing:
        """Registers or looks up the schema of a type in a topic.

        Raises:
            SchemaRegistryError: the registry cannot be reached, or refused; the text names the
                file, the message and the subject.
        """
        key = (topic, message_class.DESCRIPTOR.full_name)
        found = self._framings.get(key)
        if found is not None:
            return found
        return await self._requests.once(key, lambda: self._prepare(topic, message_class))

    async def prepare_all(self, outputs: Iterable[tuple[str, ProtoClass]], timeout: float) -> None:
        """Prepares several types; waits this time while the registry cannot be reached.

        Raises:
            SchemaRegistryError: with every problem.
        """
        deadline = time.monotonic() + timeout
        problems: list[str] = []
        for topic, message_class in outputs:
            while True:
                try:
                    await self.prepare(topic, message_class)
                except SchemaRegistryError as error:
                    left = deadline - time.monotonic()
                    if error.temporary and left > 0:
                        await asyncio.sleep(min(left, self._requests.pause))
                        continue
                    problems.append(str(error))
                break
        if problems:
            raise SchemaRegistryError("\n".join(problems))

    async def _prepare(self, topic: str, message_class: ProtoClass) -> Framing:
        options = self.of_topic(topic)
        descriptor = message_class.DESCRIPTOR
        subject = options.subject_strategy.subject(topic, descriptor.full_name)
        try:
            body = await self.body_of(descriptor.file, options)
            registered = await self._registered(subject, body, options)
        except SchemaRegistryError as error:
            raise _explained(error, descriptor, subject, topic) from error
        schema = registered.guid if options.ids is IdPlace.HEADER else None
        path = path_of(descriptor, self.options.format)
        framing = Framing(options.ids, bytes(Frame(schema or registered.id, path)))
        self._note_name(Frame(registered.id, path), descriptor.full_name)
        if registered.guid is not None:
            self._note_name(Frame(registered.guid, path), descriptor.full_name)
        if len(self._framings) >= _REMEMBERED:
            self._framings.clear()
        self._framings[topic, descriptor.full_name] = framing
        return framing

    async def body_of(self, file: Any, options: TopicOptions) -> dict[str, Any]:
        """Returns what is sent for a file; its imports are registered or looked up before.

        Args:
            file: the descriptor of the file.
            options: those of the topic.
        """
        schema = schema_of(file, self.options.format)
        references = []
        for one in schema.imports:
            found = self._references.get(one.name)
            if found is None:
                found = await self._reference(one, options)
                self._references[one.name] = found
            references.append({"name": one.name, "subject": one.name, "version": found.version})
        body: dict[str, Any] = {"schemaType": "PROTOBUF", "schema": schema.text}
        return {**body, "references": references} if references else body

    async def _reference(self, file: Any, options: TopicOptions) -> Registered:
        """Registers or looks up an imported file, whose subject is its path."""
        body = await self.body_of(file, options)
        try:
            if options.auto_register:
                await self._requests.send(self.client.register(file.name, body))
            return await self._requests.send(self.client.look_up(file.name, body))
        except SchemaRegistryError as error:
            raise type(error)(
                f"import {file.name}, subject {file.name}: {error}", temporary=error.temporary
            ) from error

    async def _registered(
        self, subject: str, body: Mapping[str, Any], options: TopicOptions
    ) -> Registered:
        if not options.auto_register:
            return await self._requests.send(self.client.look_up(subject, body))
        found = await self._requests.send(self.client.register(subject, body))
        if options.ids is IdPlace.HEADER and found.guid is None:
            return await self._requests.send(self.client.look_up(subject, body))
        return found

    # Inputs.

    def name_of(self, frame: Frame) -> str | None:
        """Returns the full name of the message that a frame names, if it is known."""
        return self._names.get(frame)

    async def learn(self, frame: Frame) -> str:
        """Asks the registry for the full name of the message that a frame names.

        Raises:
            SchemaRegistryError: the registry has no such schema; or (`temporary`) it cannot be
                reached, or refuses to answer, for example because of credentials.
        """
        if (known := self._names.get(frame)) is not None:
            return known
        absent = self._absent.get(frame)
        if absent is not None and time.monotonic() < absent[0]:
            raise SchemaRegistryError(absent[1], temporary=absent[2])
        return await self._requests.once(frame, lambda: self._learn(frame))

    async def _learn(self, frame: Frame) -> str:
        try:
            name = message_name(
                await self._requests.send(self.client.schema(frame.schema)), frame.path
            )
        except (SchemaRegistryError, DecodeError) as error:
            text = f"{frame}: {error}"
            # Any other refusal is about this service, so no message is given up because of it.
            temporary = not isinstance(error, NotRegisteredError | DecodeError)
            if not isinstance(error, SchemaRegistryError) or not error.temporary:
                if len(self._absent) >= _REMEMBERED:
                    self._absent.clear()
                self._absent[frame] = (time.monotonic() + _ABSENT, text, temporary)
            raise SchemaRegistryError(text, temporary=temporary) from error
        self._note_name(frame, name)
        return name

    def _note_name(self, frame: Frame, name: str) -> None:
        if len(self._names) >= _REMEMBERED:
            self._names.clear()
        self._names[frame] = name


def _check_places(config: Config, base: TopicOptions, by_topic: Mapping[str, TopicOptions]) -> None:
    """Raises ConfigError if frames are to be written into headers that can only hold text, or
    into envelopes."""
    if config.structured:
        raise ConfigError(
            "schema_registry: payloads of CloudEvents in structured mode have no frame; leave "
            "`structured` unset"
        )
    routes = Routes(config)
    places = {"schema_registry": (base, config.url)}
    for topic, options in by_topic.items():
        transport = config.transport_named(routes.of_topic(topic))
        places[f"topics.{topic!r}.schema_registry"] = (options, transport.url)
    problems = [
        f"{where}.ids: headers of {url.scheme}:// hold only text; write payload"
        for where, (options, url) in places.items()
        if options.enabled and options.ids is IdPlace.HEADER and not url.scheme.startswith("kafka")
    ]
    if problems:
        raise ConfigError(problems)


def _explained(
    error: SchemaRegistryError, descriptor: Any, subject: str, topic: str
) -> SchemaRegistryError:
    """Returns the error with file, message, subject, and what to do."""
    fix = ""
    if isinstance(error, NotRegisteredError):
        fix = "; register it with `protoflow schemas register`, or set auto_register"
    elif isinstance(error, IncompatibleError):
        fix = "; keep the fields of the earlier version, or change the compatibility of the subject"
    text = (
        f"{descriptor.file.name}: {descriptor.full_name} in topic {topic}, subject {subject}: "
        f"{error}{fix}"
    )
    return type(error)(text, temporary=error.temporary)
