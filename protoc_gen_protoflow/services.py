"""Reads the contracts of services and their consuming rpcs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from protoflow.error_codes import (
    BAD_REQUEST,
    NAME_RULE,
    NO_EFFECT,
    NO_TOPIC,
    OPTION_VALUE,
    RPC_FORM,
)

from protoc_gen_protoflow import value_rules
from protoc_gen_protoflow.contract import (
    Leaf,
    Leaves,
    MessageContract,
    MethodContract,
    ServiceContract,
)
from protoc_gen_protoflow.problems import Problems
from protoc_gen_protoflow.request import (
    FILE_SERVICES,
    METHOD_OPTIONS,
    SERVICE_METHODS,
    SERVICE_OPTIONS,
    Declared,
    File,
    Location,
    Request,
    options_pb2,
    text,
)
from protoc_gen_protoflow.text import literal

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import MethodDescriptorProto, ServiceDescriptorProto

    from protoc_gen_protoflow.messages import MessageReader
    from protoc_gen_protoflow.options import OptionReader

_EMPTY = ".google.protobuf.Empty"
_SERVICE = options_pb2.SERVICE_FIELD_NUMBER
_CONSUME = options_pb2.CONSUME_FIELD_NUMBER
_PUBLISH = options_pb2.PUBLISH_FIELD_NUMBER


class ServiceReader:
    """Reads services and reports mistakes."""

    def __init__(
        self,
        request: Request,
        problems: Problems,
        reader: OptionReader,
        messages: MessageReader,
    ) -> None:
        self._request = request
        self._problems = problems
        self._reader = reader
        self._messages = messages

    def read(self, file: File) -> Iterator[ServiceContract]:
        """Yields the services of a file that consume."""
        if not file.ours:
            return
        for index, service in enumerate(file.proto.service):
            name = file.full_name(text(service.name))
            place = Location(file, (FILE_SERVICES, index), name)
            annotated = [
                (number, method)
                for number, method in enumerate(service.method)
                if method.HasField("options")
                and (
                    file.says(method.options, options_pb2.consume)
                    or file.says(method.options, options_pb2.publish)
                )
            ]
            if annotated:
                yield self._service(place, service, annotated)
            elif file.says(service.options, options_pb2.service):
                self._problems.add(
                    place.at(SERVICE_OPTIONS, _SERVICE),
                    "(protoflow.v1.service) has no effect on a service that consumes nothing; add "
                    "(protoflow.v1.consume) to an rpc or remove it",
                    NO_EFFECT,
                )

    def _service(
        self,
        place: Location,
        service: ServiceDescriptorProto,
        methods: list[tuple[int, MethodDescriptorProto]],
    ) -> ServiceContract:
        options = options_pb2.ServiceOptions()
        if place.file.says(service.options, options_pb2.service):
            options = service.options.Extensions[options_pb2.service]
        location = place.at(SERVICE_OPTIONS, _SERVICE)
        self._reader.unknown(options, location)
        group = place.name
        if options.HasField("consumer_group"):
            group = self._group(location.at(1), options.consumer_group)
        delivery = self._reader.merged(
            self._messages.file(place.file).delivery,
            self._reader.policy(options.delivery, location.at(2), level=1),
        )
        contracts = (
            self._method(
                place.inside(text(method.name), SERVICE_METHODS, index), method, group, delivery
            )
            for index, method in methods
        )
        return ServiceContract(
            file=place.file,
            place=place,
            name=text(service.name),
            methods=tuple(contract for contract in contracts if contract),
            comment=place.file.comment(place.path),
        )

    def _method(
        self, place: Location, method: MethodDescriptorProto, group: str, delivery: Leaves
    ) -> MethodContract | None:
        if not place.file.says(method.options, options_pb2.consume):
            self._problems.add(
                place.at(METHOD_OPTIONS, _PUBLISH), "publishes without consuming; add (protoflow."
                "v1.consume), or publish with the event producer of the message", RPC_FORM,
            )  # fmt: skip
            return None
        options = method.options.Extensions[options_pb2.consume]
        location = place.at(METHOD_OPTIONS, _CONSUME)
        self._reader.unknown(options, location)
        declared = self._declared(place, method.input_type)
        if declared is None:
            return None
        consumed = self._messages.message(declared)
        topic = self._topic(location, options, consumed)
        if options.HasField("consumer_group"):
            group = self._group(location.at(2), options.consumer_group)
        if options.HasField("delivery"):
            own = self._reader.policy(options.delivery, location.at(3), level=2)
            delivery = self._reader.merged(delivery, own)
        output, output_topic = self._output(place, method)
        return MethodContract(
            place=place,
            rpc=text(method.name),
            input=consumed,
            topic=topic,
            group=group,
            delivery=self._prefixed(place.file, delivery),
            output=output,
            output_topic=output_topic,
            batched=method.client_streaming,
            streams=method.server_streaming,
            batch=self._batch(method, options, location.at(4)),
            broadcast=options.broadcast if options.HasField("broadcast") else None,
            effects=self._effects(options, location),
            comment=place.file.comment(place.path),
        )

    def _topic(
        self,
        location: Location,
        options: options_pb2.ConsumeOptions | options_pb2.PublishOptions,
        message: MessageContract,
    ) -> str:
        """Returns the topic of an option, or the message's own topic."""
        if options.HasField("topic"):
            return self._messages.topic(location.at(1), "topic", options.topic)
        if message.topic is None:
            is_consumed = isinstance(options, options_pb2.ConsumeOptions)
            self._no_topic(location, "consume" if is_consumed else "publish", message)
        return message.topic or ""

    def _batch(
        self, method: MethodDescriptorProto, options: options_pb2.ConsumeOptions, place: Location
    ) -> Leaves:
        if not options.HasField("batch"):
            return {}
        if not method.client_streaming:
            self._problems.add(
                place,
                "batch has no effect without a stream of inputs; "
                f"write (stream {_short(method.input_type)})",
                NO_EFFECT,
            )
        return self._reader.policy(options.batch, place, level=2)

    def _effects(self, options: options_pb2.ConsumeOptions, location: Location) -> Leaf | None:
        leaf = self._reader.enum(options, "effects", location)
        if leaf and options.broadcast and options.effects == options_pb2.EFFECTS_EXACTLY_ONCE:
            self._problems.add(
                leaf.place,
                "effects exactly once and broadcast exclude each other: every process handles the "
                "message, and only one of them would have its effects; remove one of the two",
                OPTION_VALUE,
            )
        return leaf

    def _output(
        self, place: Location, method: MethodDescriptorProto
    ) -> tuple[MessageContract | None, str]:
        publishes = place.file.says(method.options, options_pb2.publish)
        if not publishes and method.output_type == _EMPTY and not method.server_streaming:
            return None, ""
        options = options_pb2.PublishOptions()
        if publishes:
            options = method.options.Extensions[options_pb2.publish]
        location = place.at(METHOD_OPTIONS, _PUBLISH)
        self._reader.unknown(options, location)
        if method.output_type == _EMPTY:
            if publishes:
                self._problems.add(
                    location,
                    "would publish google.protobuf.Empty; return the message to publish, or remove "
                    "(protoflow.v1.publish)",
                    RPC_FORM,
                )
            elif method.server_streaming:
                self._problems.add(
                    place,
                    "returns a stream of Empty; remove the word stream before the output",
                    RPC_FORM,
                )
            return None, ""
        if not publishes:
            self._problems.add(
                place,
                f"returns {_short(method.output_type)} but does not publish it; add "
                "option (protoflow.v1.publish) = {}, or return google.protobuf.Empty",
                RPC_FORM,
            )
            return None, ""
        declared = self._declared(place, method.output_type)
        if declared is None:
            return None, ""
        output = self._messages.message(declared)
        return output, self._topic(location, options, output)

    def _declared(self, place: Location, type_name: str) -> Declared | None:
        """Returns the message that an rpc names; protoc and buf have resolved the name."""
        declared = self._request.messages.get(text(type_name))
        if declared is not None and (
            declared.file is place.file or declared.file.name in self._request.visible(place.file)
        ):
            return declared
        self._problems.add(
            place,
            f"names {_short(type_name) or 'no message'}, which neither this file nor its imports "
            "declare; make requests with protoc or buf",
            BAD_REQUEST,
        )
        return None

    def _prefixed(self, file: File, delivery: Leaves) -> Leaves:
        """Returns a policy with the prefix of the file before its dead-letter topic.

        `{topic}` in it is replaced by a topic that has the prefix already.
        """
        leaf = delivery.get("dead_letter.topic")
        prefix = self._messages.file(file).topic_prefix
        if leaf is None or not prefix or "{topic}" in str(leaf.value):
            return delivery
        topic = f"{prefix}{leaf.value}"
        self._problems.extend(
            leaf.place,
            value_rules.doubled_problems("dead_letter.topic", str(leaf.value), prefix),
            NAME_RULE,
        )
        full = leaf._replace(value=topic, text=literal(topic))
        return {**delivery, "dead_letter.topic": full}

    def _no_topic(self, place: Location, option: str, message: MessageContract) -> None:
        self._problems.add(
            place,
            f"has no topic to {option}; set (protoflow.v1.{option}).topic, or "
            f"(protoflow.v1.message).topic on {message.declared.full_name}",
            NO_TOPIC,
        )

    def _group(self, place: Location, group: str) -> str:
        self._problems.extend(place, value_rules.topic_problems("consumer_group", group), NAME_RULE)
        return group


def _short(type_name: str | bytes) -> str:
    return text(type_name).removeprefix(".")
