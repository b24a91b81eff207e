"""The places in the .proto files of each part of a contract."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from protoc_gen_protoflow.contract import MessageContract, MethodContract
from protoc_gen_protoflow.request import (
    MESSAGE_FIELDS,
    METHOD_OPTIONS,
    SERVICE_OPTIONS,
    Location,
    options_pb2,
    text,
)
from protoflow.cli.breaking.specs import FileContracts

_SERVICE = options_pb2.SERVICE_FIELD_NUMBER
_CONSUME = options_pb2.CONSUME_FIELD_NUMBER
_PUBLISH = options_pb2.PUBLISH_FIELD_NUMBER


def places(contracts: Iterable[FileContracts], shown: Callable[[str], str]) -> dict[str, str]:
    """Returns `file:line` by name, and by name and aspect separated by a space.

    Args:
        contracts: the annotations of all files.
        shown: the path to print for each file name.
    """
    found: dict[str, str] = {}
    for file in contracts:
        for service in file.services:
            for method in service.methods:
                found.update(_lines(_of_method(method, service.place), shown))
        for message in file.messages:
            found.update(_lines(_of_message(message), shown))
    return found


def _lines(
    locations: Iterable[tuple[str, Location]], shown: Callable[[str], str]
) -> Iterator[tuple[str, str]]:
    for name, location in locations:
        position = location.file.position(location.path)
        line = f":{position[0]}" if position else ""
        yield name, f"{shown(location.file.name)}{line}"


def _of_method(method: MethodContract, service: Location) -> Iterator[tuple[str, Location]]:
    name, place = method.place.name, method.place
    yield name, place
    consume = place.at(METHOD_OPTIONS, _CONSUME)
    options = _method_options(place)
    yield f"{name} topic", _first(consume.at(1), options.HasField("topic")) or _topic(method.input)
    own_group = _first(consume.at(2), options.HasField("consumer_group"))
    yield f"{name} group", own_group or service.at(SERVICE_OPTIONS, _SERVICE, 1)
    yield f"{name} batch", consume.at(4)
    yield f"{name} broadcast", consume.at(5)
    yield f"{name} effects", consume.at(6)
    publish = place.at(METHOD_OPTIONS, _PUBLISH)
    if method.output is not None and method.output_topic == method.output.topic:
        yield f"{name} publish", _topic(method.output)
    else:
        yield f"{name} publish", publish
    for leaf, value in method.delivery.items():
        yield f"{name} {leaf}", value.place


def _method_options(place: Location) -> options_pb2.ConsumeOptions:
    _, service, _, method = place.path
    proto = place.file.proto.service[service].method[method]
    return proto.options.Extensions[options_pb2.consume]


def _first(place: Location, is_set: bool) -> Location | None:
    return place if is_set else None


def _topic(message: MessageContract) -> Location:
    leaf = message.values.get("topic")
    return leaf.place if leaf else message.declared.place


def _of_message(message: MessageContract) -> Iterator[tuple[str, Location]]:
    declared = message.declared
    name, place = declared.full_name, declared.place
    yield name, place
    for aspect, leaf in message.values.items():
        yield f"{name} {aspect}", leaf.place
    for index, field in enumerate(declared.proto.field):
        yield f"{name} {text(field.name)}", place.at(MESSAGE_FIELDS, index)
