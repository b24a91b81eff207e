"""Converts descriptors to specs without imports, so that a process can hold two versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from google.protobuf import message_factory
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from protoc_gen_protoflow import names, ours
from protoc_gen_protoflow.contract import Leaves, MessageContract, MethodContract, ServiceContract
from protoc_gen_protoflow.errors import UserError
from protoc_gen_protoflow.messages import MessageReader
from protoc_gen_protoflow.options import OptionReader
from protoc_gen_protoflow.problems import Problems
from protoc_gen_protoflow.request import File, Request
from protoc_gen_protoflow.sensitive import SensitiveFields
from protoc_gen_protoflow.services import ServiceReader
from protoc_gen_protoflow.subscriptions import shared
from protoflow.contract import spec
from protoflow.contract.spec import (
    BatchPolicy,
    DeadLetterPolicy,
    DeliveryPolicy,
    FileSpec,
    MessageSpec,
    MethodSpec,
    ProtoClass,
    PublicationSpec,
    RetryPolicy,
    ServiceSpec,
)
from protoflow.error_codes import OLD_CONTRACT
from protoflow.errors import ConfigError

#: Every image contains these files, which have no contract.
_LIBRARIES = ("google/", "buf/validate/", "protoflow/v1/")


class FileContracts(NamedTuple):
    """The annotations of a file, with their places."""

    file: File
    services: list[ServiceContract]
    messages: list[MessageContract]


class Descriptors:
    """The contract in descriptors.

    Args:
        image: the descriptors of all files; imported files come first.

    Raises:
        ConfigError: with every mistake in the annotations.
    """

    def __init__(self, image: FileDescriptorSet) -> None:
        self._pool = DescriptorPool()
        try:
            for proto in image.file:
                self._pool.AddSerializedFile(proto.SerializeToString())
        except TypeError as error:
            raise ConfigError(f"an import is missing: {error}", code=OLD_CONTRACT) from None
        files = [proto.name for proto in image.file if not proto.name.startswith(_LIBRARIES)]
        request = CodeGeneratorRequest(file_to_generate=files, proto_file=image.file)
        self._request = Request(request.SerializeToString())
        self._sensitive = SensitiveFields(self._request)
        self.contracts = list(self._read())

    def files(self) -> list[FileSpec]:
        """Returns the specs as generated modules have them, without producers."""
        return [
            FileSpec(
                source=contracts.file.name,
                services=tuple(
                    ServiceSpec(
                        name=service.place.name,
                        methods=tuple(self._method(m) for m in service.methods),
                    )
                    for service in contracts.services
                ),
                messages=tuple(self._message(message) for message in contracts.messages),
            )
            for contracts in self.contracts
        ]

    def _read(self) -> Iterator[FileContracts]:
        """Reads the annotations in the same way as the plugin."""
        ours.mark(self._request)
        problems = Problems()
        reader = OptionReader(problems)
        messages = MessageReader(self._request, problems, reader, self._sensitive)
        services = ServiceReader(self._request, problems, reader, messages)
        for file in self._request.wanted.values():
            ours.check(file, problems)
            if not file.ours:
                continue
            messages.file(file)
            consuming = shared(list(services.read(file)), messages, problems)
            contracts = [messages.message(declared) for declared in file.messages]
            yield FileContracts(file, consuming, [one for one in contracts if one.is_annotated])
        if problems:
            raise ConfigError(str(UserError(problems.report())).splitlines())

    def _class(self, name: str) -> ProtoClass:
        found: ProtoClass = message_factory.GetMessageClass(self._pool.FindMessageTypeByName(name))
        return found

    def _message(self, contract: MessageContract) -> MessageSpec:
        declared = contract.declared
        fields, hiding = self._sensitive.of_module(declared.file, [declared])
        return MessageSpec(
            message_class=self._class(declared.full_name),
            aliases=contract.aliases,
            sensitive=fields if declared.full_name in hiding else {},
            **_leaves(contract.values, ""),
        )

    def _method(self, method: MethodContract) -> MethodSpec:
        publication = None
        if method.output is not None:
            output = self._message(method.output)
            publication = PublicationSpec(topic=method.output_topic, message=output)
        return MethodSpec(
            name=method.place.name,
            handler=names.method_name(method.rpc),
            input=self._message(method.input),
            topic=method.topic,
            group=method.group,
            delivery=delivery(method.delivery),
            publication=publication,
            batched=method.batched,
            streams=method.streams,
            batch=BatchPolicy(**_leaves(method.batch, "")),
            broadcast=bool(method.broadcast),
            **_leaves({"effects": method.effects} if method.effects else {}, ""),
        )


def delivery(leaves: Leaves) -> DeliveryPolicy:
    """Returns the policy with these values."""
    return DeliveryPolicy(
        **_leaves(leaves, ""),
        retry=RetryPolicy(**_leaves(leaves, "retry.")),
        dead_letter=DeadLetterPolicy(**_leaves(leaves, "dead_letter.")),
    )


def _leaves(leaves: Leaves, prefix: str) -> Mapping[str, Any]:
    return {
        name: _value(leaf.value)
        for path, leaf in leaves.items()
        if path.startswith(prefix) and "." not in (name := path.removeprefix(prefix))
    }


def _value(value: Any) -> Any:
    """Returns a value as specs have it; the plugin writes enum members as Python text."""
    if isinstance(value, str) and value.startswith("_pf."):
        _, enum, member = value.split(".")
        return getattr(spec, enum)[member]
    return value
