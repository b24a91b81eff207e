"""The commands: one row each, so that `--help` loads none of them."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """A command.

    Attributes:
        module: the module that holds it as `command`.
        help: one line for the list of commands.
    """

    module: str
    help: str


COMMANDS = {
    "init": Row("protoflow.cli.init.command", "Start a project: contract, handlers, tests."),
    "generate": Row("protoflow.cli.generate.command", "Generate Python from .proto files."),
    "run": Row("protoflow.cli.run", "Run a service."),
    "dev": Row("protoflow.cli.dev", "Run a service on a file, and follow its sources."),
    "publish": Row("protoflow.cli.publish", "Publish messages of a type, written as JSON."),
    "tail": Row("protoflow.cli.tail", "Show the messages of a topic as they come."),
    "lag": Row("protoflow.cli.lag", "Show how much waits in each group."),
    "dlq": Row("protoflow.cli.dlq.command", "List, show, replay, purge or export dead letters."),
    "relay": Row("protoflow.cli.relay", "Publish what applications write to an outbox."),
    "outbox": Row("protoflow.cli.outbox", "List, retry or purge what a relay parked."),
    "why": Row("protoflow.cli.why", "Show what became of one message."),
    "pause": Row("protoflow.cli.control.pause", "Stop taking messages in a running process."),
    "resume": Row("protoflow.cli.control.resume", "End a pause in a running process."),
    "drain": Row("protoflow.cli.control.drain", "Finish what runs and leave the group."),
    "describe": Row("protoflow.cli.describe", "Show the handlers and topics of a contract."),
    "asyncapi": Row("protoflow.cli.asyncapi", "Describe the contract by AsyncAPI 3.1."),
    "check": Row("protoflow.cli.check", "Check settings and contract before a deploy."),
    "breaking": Row(
        "protoflow.cli.breaking.command", "Show what a change of the contract does to messages."
    ),
    "topology": Row("protoflow.cli.topology", "Compare topics and queues with the broker's."),
    "doctor": Row("protoflow.cli.doctor", "Examine the installation and the way to the broker."),
    "config": Row("protoflow.cli.config", "Show the settings and where each comes from."),
    "version": Row("protoflow.cli.version", "Show versions."),
}
