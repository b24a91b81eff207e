"""Compares the schemas of a contract with those of the registry, or registers them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from protoflow.contract.spec import ProtoClass
from protoflow.schema_registry.client import IncompatibleError, NotRegisteredError
from protoflow.schema_registry.options import TopicOptions
from protoflow.schema_registry.registry import SchemaRegistry
from protoflow.schema_registry.schema import schema_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A schema of the contract, and its state in the registry.

    Attributes:
        subject: its subject.
        file: the .proto file.
        message: the full name of the message; empty for an imported file.
        state: `=`: it is registered; `+`: it is not, and could be; `!`: it is refused.
        id: its id; None if it is not registered.
        version: its version in the subject; None if it is not registered, or not known.
        note: why it is refused, or what is missing.
    """

    subject: str
    file: str
    message: str
    state: str
    id: int | None = None
    version: int | None = None
    note: str = ""


async def compared(
    registry: SchemaRegistry, outputs: Iterable[tuple[str, ProtoClass]], *, register: bool
) -> list[Comparison]:
    """Returns the state of all schemas, imported files before the files that import them.

    Args:
        registry: the registry.
        outputs: topics and the types that are published to them.
        register: register what is missing; otherwise nothing is changed.

    Raises:
        SchemaRegistryError: the registry cannot be reached, or refuses the credentials.
    """
    found: dict[tuple[str, str], Comparison] = {}
    for topic, message_class in outputs:
        descriptor: Any = message_class.DESCRIPTOR
        options = replace(registry.of_topic(topic), auto_register=register)
        for file in _imported(registry, descriptor.file):
            if (file.name, "") not in found:
                found[file.name, ""] = await _compared(registry, file.name, file, "", options)
        subject = options.subject_strategy.subject(topic, descriptor.full_name)
        found[subject, descriptor.full_name] = await _compared(
            registry, subject, descriptor.file, descriptor.full_name, options
        )
    return list(found.values())


async def _compared(
    registry: SchemaRegistry, subject: str, file: Any, message: str, options: TopicOptions
) -> Comparison:
    row = Comparison(subject=subject, file=file.name, message=message, state="+")
    client = registry.client
    body: dict[str, Any] | None = None
    try:
        body = await registry.body_of(file, options)
        if options.auto_register:
            await client.register(subject, body)
        registered = await client.look_up(subject, body)
    except IncompatibleError as error:
        return replace(row, state="!", note=str(error))
    except NotRegisteredError as error:
        if body is None:  # it is about an import
            return replace(row, note=f"{str(error).partition(',')[0]} is not registered")
    else:
        version = registered.version or None
        return replace(row, state="=", id=registered.id, version=version)
    problems = await client.incompatibilities(subject, body)
    if problems:
        return replace(row, state="!", note="; ".join(problems))
    return row


def _imported(registry: SchemaRegistry, file: Any) -> Iterator[Any]:
    """Yields the files that are registered as references, those that import nothing first."""
    for one in schema_of(file, registry.options.format).imports:
        yield from _imported(registry, one)
        yield one
