"""The commands: one row each, so that `--help` imports none of them."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """A command.

    Attributes:
        module: the module that defines it as `command`.
        help: its line in the list of commands.
    """

    module: str
    help: str


COMMANDS = {
    "init": Row("protoflow.cli.init.command", "Start a project: contract, handlers, tests."),
    "generate": Row("protoflow.cli.generate.command", "Generate Python from .proto files."),
    "run": Row("protoflow.cli.run", "Run a service."),
    "dev": Row("protoflow.cli.dev", "Run a service on a SQLite file, and restart it on changes."),
    "publish": Row("protoflow.cli.publish", "Publish messages that are written as JSON."),
    "tail": Row("protoflow.cli.tail", "Show the messages of a topic."),
    "lag": Row("protoflow.cli.lag", "Show how many messages wait in each group."),
    "dlq": Row("protoflow.cli.dlq.command", "List, show, replay, purge or export dead letters."),
    "relay": Row("protoflow.cli.relay", "Publish what applications write to an outbox."),
    "outbox": Row("protoflow.cli.outbox", "List, retry or purge what a relay parked."),
    "replay": Row(
        "protoflow.cli.replay.command", "Run one handler for old messages, or compare two."
    ),
    "why": Row("protoflow.cli.why", "Show what happened to a message."),
    "pause": Row("protoflow.cli.control.pause", "Pause the handlers of a running process."),
    "resume": Row("protoflow.cli.control.resume", "End a pause in a running process."),
    "drain": Row("protoflow.cli.control.drain", "Finish running handlers and leave the group."),
    "dashboard": Row("protoflow.cli.dashboard", "Show the state of a broker in the browser."),
    "describe": Row("protoflow.cli.describe", "Show the handlers and topics of a contract."),
    "asyncapi": Row("protoflow.cli.asyncapi", "Describe the contract as an AsyncAPI document."),
    "check": Row("protoflow.cli.check", "Check settings and contract before a deploy."),
    "breaking": Row(
        "protoflow.cli.breaking.command", "Show what a changed contract does to messages."
    ),
    "topology": Row("protoflow.cli.topology", "Compare topics and queues with the broker."),
    "schemas": Row(
        "protoflow.cli.registry", "Compare schemas with the schema registry, or register them."
    ),
    "export": Row(
        "protoflow.cli.export.command", "Print manifests for Kubernetes, KEDA or systemd."
    ),
    "doctor": Row(
        "protoflow.cli.doctor", "Check the installation and the connection to the broker."
    ),
    "explain": Row("protoflow.cli.explain", "Show the cause and the fix of an error code."),
    "config": Row("protoflow.cli.config", "Show the settings and their origins."),
    "version": Row("protoflow.cli.version", "Show versions."),
}
