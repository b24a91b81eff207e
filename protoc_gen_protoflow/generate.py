"""Converts a request to a response."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import Edition

from protoc_gen_protoflow import ours, parameters
from protoc_gen_protoflow.build import ModuleBuilder
from protoc_gen_protoflow.clashes import check_names, check_paths
from protoc_gen_protoflow.errors import UserError
from protoc_gen_protoflow.messages import MessageReader
from protoc_gen_protoflow.model import Module
from protoc_gen_protoflow.options import OptionReader
from protoc_gen_protoflow.problems import Problems
from protoc_gen_protoflow.render import render, templates
from protoc_gen_protoflow.request import File, Request
from protoc_gen_protoflow.sensitive import SensitiveFields
from protoc_gen_protoflow.services import ServiceReader
from protoc_gen_protoflow.subscriptions import shared

if TYPE_CHECKING:
    from protoc_gen_protoflow.asyncapi import DocumentBuilder


class Output(NamedTuple):
    """The results for a request.

    Attributes:
        modules: the modules to render.
        documents: the path and the text of each AsyncAPI document.
    """

    modules: list[Module]
    documents: list[tuple[str, str]]


def respond(data: bytes) -> Iterator[bytes]:
    """Returns the response to a serialized `CodeGeneratorRequest`, in parts of one message.

    The response contains the mistakes of the user. An exception is a bug of the plugin.
    """
    request = Request(data)
    yield CodeGeneratorResponse(
        supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
        | CodeGeneratorResponse.FEATURE_SUPPORTS_EDITIONS,
        minimum_edition=Edition.EDITION_PROTO2,
        maximum_edition=Edition.EDITION_2024,
    ).SerializeToString()
    try:
        output = build(request, parameters.parse(request.parameter))
        template = templates()
    except UserError as error:
        yield CodeGeneratorResponse(error=str(error)).SerializeToString()
        return
    for module in output.modules:
        # Each file has a separate response, because a large one would be copied repeatedly.
        yield _file(module.path, render(module, template))
    for path, content in output.documents:
        yield _file(path, content)


def _file(path: str, content: str) -> bytes:
    file = CodeGeneratorResponse.File(name=path, content=content)
    return CodeGeneratorResponse(file=[file]).SerializeToString()


def build(request: Request, options: parameters.Parameters) -> Output:
    """Returns the modules to generate. Raises `UserError` with every mistake.

    Each file is processed separately, because the result may only depend on the file and its
    imports, and not on the way in which a build splits its files into requests.
    """
    ours.mark(request)
    problems = Problems()
    sensitive = SensitiveFields(request)
    reader = OptionReader(problems)
    messages = MessageReader(request, problems, reader, sensitive)
    services = ServiceReader(request, problems, reader, messages)
    modules: list[Module] = []
    documents: list[tuple[str, str]] = []
    described = _documents(request, options, sensitive)
    made: list[File] = []
    for file in request.wanted.values():
        ours.check(file, problems)
        if not file.ours:
            continue
        messages.file(file)
        messages.check_extensions(file)
        consuming = shared(list(services.read(file)), messages, problems)
        contracts = [messages.message(declared) for declared in file.messages]
        annotated = [contract for contract in contracts if contract.is_annotated]
        if not consuming and not any(contract.topic is not None for contract in annotated):
            continue
        check_names(file, consuming, annotated, options, problems)
        made.append(file)
        if not problems:
            builder = ModuleBuilder(file, request, options, sensitive)
            modules.append(builder.build(consuming, annotated))
            if described is not None:
                documents.append(described.build(file, consuming, annotated))
    check_paths(made, problems)
    if problems:
        raise UserError(problems.report())
    return Output(modules, documents)


def _documents(
    request: Request, options: parameters.Parameters, sensitive: SensitiveFields
) -> DocumentBuilder | None:
    if options.asyncapi == "none":
        return None
    # imported here, because only few requests need it
    from protoc_gen_protoflow.asyncapi import DocumentBuilder

    return DocumentBuilder(request, options, sensitive)
