"""From a request to a response."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import Edition

from protoc_gen_protoflow import parameters
from protoc_gen_protoflow.build import ModuleBuilder
from protoc_gen_protoflow.clashes import check_names, check_paths
from protoc_gen_protoflow.contract import ServiceContract
from protoc_gen_protoflow.messages import MessageReader
from protoc_gen_protoflow.model import Module
from protoc_gen_protoflow.policy import PolicyReader
from protoc_gen_protoflow.problems import Problems, UserError
from protoc_gen_protoflow.render import render, templates
from protoc_gen_protoflow.request import File, Request
from protoc_gen_protoflow.sensitive import SensitiveFields
from protoc_gen_protoflow.services import ServiceReader
from protoc_gen_protoflow.subscriptions import shared


def respond(data: bytes) -> Iterator[bytes]:
    """The response to a serialized `CodeGeneratorRequest`, in pieces that make one message.

    The user's mistakes are in the response; an exception is a bug of ours.
    """
    request = Request(data)
    yield CodeGeneratorResponse(
        supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
        | CodeGeneratorResponse.FEATURE_SUPPORTS_EDITIONS,
        minimum_edition=Edition.EDITION_PROTO2,
        maximum_edition=Edition.EDITION_2024,
    ).SerializeToString()
    try:
        modules = build(request, parameters.parse(request.parameter))
        template = templates()
    except UserError as error:
        yield CodeGeneratorResponse(error=str(error)).SerializeToString()
        return
    for module in modules:
        # One response for each file: a large one would be copied again and again.
        file = CodeGeneratorResponse.File(name=module.path, content=render(module, template))
        yield CodeGeneratorResponse(file=[file]).SerializeToString()


def build(request: Request, options: parameters.Parameters) -> list[Module]:
    """The modules to generate. Raises `UserError` with every mistake."""
    problems = Problems()
    sensitive = SensitiveFields(request)
    messages, services = _readers(request, problems, sensitive)
    wanted = {file.name: file for file in request.wanted}
    others = [file for name, file in request.files.items() if name not in wanted]
    found = [
        *_known(others, request, sensitive),
        *(s for file in request.wanted for s in services.read(file)),
    ]
    by_file: dict[str, list[ServiceContract]] = {name: [] for name in request.files}
    for service in shared(found, wanted, problems):
        by_file[service.file.name].append(service)
    modules: list[Module] = []
    for name, file in wanted.items():
        messages.file(file)
        messages.check_extensions(file)
        contracts = [messages.message(declared) for declared in file.messages]
        annotated = [contract for contract in contracts if contract.is_annotated]
        check_names(file, by_file[name], annotated, problems)
        if module := ModuleBuilder(file, request, options, sensitive).build(
            by_file[name], annotated
        ):
            modules.append(module)
    check_paths(modules, wanted, problems)
    if problems:
        raise UserError(problems.report())
    return modules


def _readers(
    request: Request, problems: Problems, sensitive: SensitiveFields
) -> tuple[MessageReader, ServiceReader]:
    policies = PolicyReader(problems)
    messages = MessageReader(problems, policies, sensitive)
    return messages, ServiceReader(request, problems, policies, messages)


def _known(
    files: Iterable[File], request: Request, sensitive: SensitiveFields
) -> Iterator[ServiceContract]:
    """The services of files that are imported only: their mistakes are told elsewhere."""
    _, services = _readers(request, Problems(), sensitive)
    for file in files:
        yield from services.read(file)
