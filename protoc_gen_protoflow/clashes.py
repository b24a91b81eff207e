"""Names that Python cannot spell, and names that become one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from protoc_gen_protoflow import names
from protoc_gen_protoflow.contract import MessageContract, ServiceContract
from protoc_gen_protoflow.model import Module
from protoc_gen_protoflow.problems import Place, Problems
from protoc_gen_protoflow.request import Declared, File


def check_names(
    file: File,
    services: list[ServiceContract],
    messages: list[MessageContract],
    problems: Problems,
) -> None:
    """Notes what is wrong with the names of a module to be.

    Args:
        file: the file that the module is for.
        services: its services that consume.
        messages: its messages that are annotated.
        problems: takes the notes.
    """
    events = [message for message in messages if message.topic is not None]
    if not services and not events:
        return
    named = {message.declared.full_name: message.declared for message in messages}
    classes: dict[str, str] = {}
    for service in services:
        _check_methods(service, problems)
        stem = names.service_stem(service.name)
        for kind in ("Handler", "Producer"):
            _take(classes, stem + kind, service.place, problems)
        _check_private(service.place, service.name, problems)
        for method in service.methods:
            for message in (method.input, method.output):
                if message is not None:
                    named[message.declared.full_name] = message.declared
    if events:
        _take(classes, f"{names.event_stem(file.name)}EventProducer", file.place, problems)
        _check_events(events, problems)
    for declared in named.values():
        _check_message(declared, problems)
    _check_path(file.module, file.place, problems)
    for used in {declared.file.name: declared.file for declared in named.values()}.values():
        if used is not file:
            _check_path(used.module, file.place, problems)


def check_paths(modules: Iterable[Module], files: Mapping[str, File], problems: Problems) -> None:
    """Notes files whose modules would have one path, such as `a-b.proto` and `a_b.proto`."""
    taken: dict[str, str] = {}
    for module in modules:
        owner = taken.setdefault(module.path, module.source)
        if owner != module.source:
            problems.add(
                files[module.source].place,
                f"becomes {module.path} in Python, as {owner} does; rename one of them",
            )


def _check_methods(service: ServiceContract, problems: Problems) -> None:
    taken: dict[str, str] = {}
    for method in service.methods:
        name = names.method_name(method.rpc)
        _check_private(method.place, method.rpc, problems)
        _take_both(taken, name, method.place, problems)


def _check_events(messages: Iterable[MessageContract], problems: Problems) -> None:
    taken: dict[str, str] = {}
    for message in messages:
        name = names.publish_name(message.declared.name)
        _take_both(taken, name, message.declared.place, problems)


def _take_both(taken: dict[str, str], name: str, place: Place, problems: Problems) -> None:
    """Takes the two names of a producer's methods."""
    if _take(taken, name, place, problems):
        _take(taken, f"{name}_many", place, problems)


def _take(taken: dict[str, str], name: str, place: Place, problems: Problems) -> bool:
    owner = taken.setdefault(name, place.name)
    if owner == place.name:
        return True
    problems.add(place, f"becomes {name} in Python, as {owner} does; rename one of them")
    return False


def _check_private(place: Place, name: str, problems: Problems) -> None:
    if name.startswith("_"):
        problems.add(place, f"{name} begins with '_', which is private in Python; rename it")


def _check_message(declared: Declared, problems: Problems) -> None:
    for part in declared.name.split("."):
        if names.is_keyword(part):
            problems.add(
                declared.place,
                f"{part} is a keyword of Python, which no module can name; rename the message",
            )
        _check_private(declared.place, part, problems)


def _check_path(module: str, place: Place, problems: Problems) -> None:
    segment = names.bad_module_segment(f"{module}_pb2")
    if segment is not None:
        reason = "is a keyword of Python" if names.is_keyword(segment) else "is no Python name"
        problems.add(
            place,
            f"{segment!r} in the path of {module.replace('.', '/')} {reason}, so that no module "
            "there can be imported; rename the file or directory",
        )
