"""Makes docstrings from the comments of the .proto and the annotations."""

from __future__ import annotations

from protoc_gen_protoflow.contract import MessageContract, MethodContract, ServiceContract
from protoc_gen_protoflow.request import File

_WIDTH = 80  # of generated sentences


def handler(service: ServiceContract) -> tuple[str, ...]:
    """Returns the docstring of a handler class."""
    return _paragraphs(
        clean(service.comment), "" if service.comment else f"Handles {service.place.name}."
    )


def method(contract: MethodContract) -> tuple[str, ...]:
    """Returns the docstring of a handler method."""
    facts = f"Consumes `{contract.topic}` in the group `{contract.group}`"
    if contract.output:
        facts += f"; publishes its results to `{contract.output_topic}`"
    return _paragraphs(clean(contract.comment), f"{facts}.")


def service_producer(service: ServiceContract) -> tuple[str, ...]:
    """Returns the docstring of the client of a service."""
    return _paragraphs(
        f"Publishes the messages that {service.place.name} consumes.",
        "Each message goes to its topic; every group subscribed there gets the message.",
    )


def event_producer(file: File) -> tuple[str, ...]:
    """Returns the docstring of the event producer of a file."""
    return _paragraphs(
        f"Publishes the events of {file.name}.",
        "Each message goes to its topic; every group subscribed there gets the message.",
    )


def publication(topic: str, comment: str) -> tuple[str, ...]:
    """Returns the docstring of a producer method."""
    return _paragraphs(comment, f"Publishes to `{topic}`.")


def comment_of(message: MessageContract) -> str:
    """Returns the comment of a message."""
    return clean(message.declared.file.comment(message.declared.path))


def clean(comment: str) -> str:
    """Returns a comment without linter directives, split into lines that all tools accept."""
    lines = [_printable(line) for line in comment.splitlines()]
    lines = [line for line in lines if not line.lstrip().startswith("buf:lint:ignore")]
    margin = min((len(line) - len(line.lstrip()) for line in lines if line), default=0)
    return "\n".join([line[margin:] for line in lines]).strip()


def _printable(line: str) -> str:
    if not line.isprintable():
        line = "".join(char if char.isprintable() else " " for char in line.expandtabs())
    return line.rstrip()


def _paragraphs(*paragraphs: str) -> tuple[str, ...]:
    return tuple([_wrapped(paragraph) for paragraph in paragraphs if paragraph])


def _wrapped(paragraph: str) -> str:
    """Wraps a paragraph that is one long line; other line breaks stay as they are."""
    if len(paragraph) <= _WIDTH or "\n" in paragraph:
        return paragraph
    lines: list[str] = []
    line = ""
    for word in paragraph.split():
        if line and len(line) + 1 + len(word) > _WIDTH:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return "\n".join([*lines, line])
