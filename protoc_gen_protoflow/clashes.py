"""Finds names that are invalid in Python, and names that become equal."""

from __future__ import annotations

from collections.abc import Iterable

from protoflow.error_codes import BAD_REQUEST, NAME_CLASH, PYTHON_NAME

from protoc_gen_protoflow import names, paths
from protoc_gen_protoflow.contract import MessageContract, ServiceContract
from protoc_gen_protoflow.parameters import Parameters
from protoc_gen_protoflow.problems import Problems
from protoc_gen_protoflow.request import Declared, File, Location

# The fixes keep both names in use; each kind of clash has its own fix.
_KEEP_SERVICE = (
    "move one of them to another file of the package, where it keeps its full name, or rename one"
)
_KEEP_RPC = (
    "rename one of them, which changes neither topics nor groups nor types, or move one to another "
    "service with the same consumer_group"
)
_KEEP_MESSAGE = (
    "move one of them to another file of the package, where it keeps its full name, or rename one "
    "and keep its old name with (protoflow.v1.message).type"
)


def check_names(
    file: File,
    services: list[ServiceContract],
    messages: list[MessageContract],
    parameters: Parameters,
    problems: Problems,
) -> None:
    """Reports the errors in the names of a module.

    Args:
        file: the file of the module.
        services: its consuming services.
        messages: its annotated messages.
        parameters: the plugin's parameters, which may move modules.
        problems: collects the errors.
    """
    events = [message for message in messages if message.topic is not None]
    if not services and not events:
        return
    named = {message.declared.full_name: message.declared for message in messages}
    classes: dict[str, str] = {}
    for service in services:
        _check_methods(service, problems)
        _check_spelling(service.place, service.name, problems)
        stem = names.service_stem(service.name)
        if _take(classes, f"{stem}Handler", service.place, _KEEP_SERVICE, problems):
            _take(classes, f"{stem}Producer", service.place, _KEEP_SERVICE, problems)
        for method in service.methods:
            for message in (method.input, method.output):
                if message is not None:
                    named[message.declared.full_name] = message.declared
    _check_events(events, problems)
    for declared in named.values():
        _check_message(declared, problems)
    used = {declared.file.name: declared.file for declared in named.values()}
    paths.check(file, used.values(), parameters, problems)


def check_paths(files: Iterable[File], problems: Problems) -> None:
    """Reports files whose modules would have the same path, such as `a-b.proto` and `a_b.proto`.

    Protoc also refuses them, but less clearly. This is the only rule over several files.
    """
    taken: dict[str, str] = {}
    for file in files:
        owner = taken.setdefault(file.module, file.name)
        if owner != file.name:
            problems.add(
                file.place,
                f"becomes {file.module.replace('.', '/')}_protoflow.py in Python, as {owner} does; "
                "rename one of the files",
                NAME_CLASH,
            )


def _check_methods(service: ServiceContract, problems: Problems) -> None:
    taken: dict[str, str] = {}
    for method in service.methods:
        _check_spelling(method.place, method.rpc, problems)
        _take_both(taken, names.method_name(method.rpc), method.place, _KEEP_RPC, problems)


def _check_events(messages: Iterable[MessageContract], problems: Problems) -> None:
    taken: dict[str, str] = {}
    for message in messages:
        name = names.publish_name(message.declared.name)
        _take_both(taken, name, message.declared.place, _KEEP_MESSAGE, problems)


def _take_both(
    taken: dict[str, str], name: str, place: Location, fix: str, problems: Problems
) -> None:
    """Registers the two names of a producer's methods."""
    if _take(taken, name, place, fix, problems):
        _take(taken, f"{name}_many", place, fix, problems)


def _take(taken: dict[str, str], name: str, place: Location, fix: str, problems: Problems) -> bool:
    owner = taken.setdefault(name, place.name)
    if owner == place.name:
        return True
    problems.add(place, f"becomes {name} in Python, as {owner} does; {fix}", NAME_CLASH)
    return False


def _check_spelling(place: Location, name: str, problems: Problems) -> None:
    if not names.is_proto_name(place.name) or "." in name:
        problems.add(
            place,
            "has a name that no .proto can contain; make requests with protoc or buf",
            BAD_REQUEST,
        )
    elif name.startswith("_"):
        problems.add(
            place, f"{name} begins with '_', which is private in Python; rename it", PYTHON_NAME
        )


def _check_message(declared: Declared, problems: Problems) -> None:
    outermost, *nested = declared.name.split(".")
    for part in (outermost, *nested):
        if names.is_keyword(part):
            problems.add(
                declared.place,
                f"{part} is a keyword of Python, so no module can import it; rename the message",
                PYTHON_NAME,
            )
        _check_spelling(declared.place, part, problems)
    if "DESCRIPTOR" in nested:
        problems.add(
            declared.place,
            "DESCRIPTOR is hidden in Python by the descriptor of the message around it; rename the "
            "message, or move it out of the other",
            NAME_CLASH,
        )
