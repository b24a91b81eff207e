"""Channels: one for each topic at the broker."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from protoflow.asyncapi.bindings import DEAD_LETTER, RETRY, TOPIC, Bindings, with_fields
from protoflow.asyncapi.deployment import Consumer, Deployment, dead_letter_template
from protoflow.contract import names
from protoflow.contract.spec import MessageSpec, MethodSpec

_VARIABLE = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_KEY = re.compile(r"[A-Za-z0-9._-]+")


class Channels:
    """Collects the channels of a document.

    Args:
        deployment: the facts about the deployed contract.

    Attributes:
        objects: the channels by key, in the order in which they were added.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._transport = deployment.transport
        self._bindings: Bindings = deployment.bindings
        self._keys: dict[str, str] = {}
        self.objects: dict[str, dict[str, Any]] = {}

    def topic(self, template: str, topic: str, message: MessageSpec) -> str:
        """Returns the key of a topic's channel, and adds this message to the channel.

        Args:
            template: the topic in the contract, which may contain variables.
            topic: the topic with the variables that the deployment knows filled in.
            message: a message of the channel.
        """
        return self._topic(template, topic, TOPIC, message)

    def dead_letters(self, method: MethodSpec, consumer: Consumer) -> str:
        """Returns the key of the channel of a method's dead letters."""
        template = dead_letter_template(method, consumer.policy)
        return self._topic(template, consumer.dead_letters, DEAD_LETTER, method.input)

    def retries(self, method: MethodSpec, consumer: Consumer) -> str | None:
        """Returns the key of the channel of a group's waiting retries; None if there is none."""
        found = self._bindings.retries(consumer.topic, consumer.group, waits=consumer.waits)
        if found is None:
            return None
        key = self._key(names.join(method.topic, method.group, "retry"), found.address)
        channel = self.objects.setdefault(key, {"address": found.address, "messages": {}})
        if found.waits:
            replays = "; 0 for replayed dead letters" if "0" in found.waits else ""
            channel["parameters"] = {
                "wait": {
                    "description": f"How long a failed message waits, in seconds{replays}.",
                    "enum": [*found.waits],
                }
            }
        with_fields(channel, found.fields, {"x-protoflow-role": RETRY})
        _add_message(channel, method.input)
        return key

    def _topic(self, template: str, topic: str, role: str, message: MessageSpec) -> str:
        address = self._bindings.address(topic)
        key = self._key(template, address)
        channel = self.objects.get(key)
        if channel is None:
            channel = self.objects[key] = {"address": address, "messages": {}}
            if variables := dict.fromkeys(_VARIABLE.findall(address)):
                channel["parameters"] = {name: _parameter(name) for name in variables}
            with_fields(channel, self._bindings.channel(topic, role))
            if role != TOPIC:
                channel["x-protoflow-role"] = role
        _add_message(channel, message)
        return key

    def _key(self, template: str, address: str) -> str:
        """Returns the key of an address, which depends on the contract only.

        So the key is the same in every deployment.
        """
        found = self._keys.get(address)
        if found is None:
            found = sanitized(template)
            if found in self._keys.values():
                found = f"{found}-{names.digest(template)[:6]}"
            self._keys[address] = found
        return found


def sanitized(template: str) -> str:
    """Returns a topic as a key: variables lose their braces."""
    return "".join(_KEY.findall(template))


def reference(key: str) -> dict[str, str]:
    """Returns a reference to a channel."""
    return {"$ref": f"#/channels/{key}"}


def message_references(key: str, messages: Iterable[MessageSpec]) -> list[Mapping[str, str]]:
    """Returns references to messages of a channel."""
    return [{"$ref": f"#/channels/{key}/messages/{full_name(message)}"} for message in messages]


def full_name(message: MessageSpec) -> str:
    """Returns the full name of the message in the .proto."""
    name: str = message.message_class.DESCRIPTOR.full_name
    return name


def _add_message(channel: dict[str, Any], message: MessageSpec) -> None:
    name = full_name(message)
    channel["messages"].setdefault(name, {"$ref": f"#/components/messages/{name}"})


def _parameter(name: str) -> dict[str, Any]:
    return {"description": f"The variable {name}, which the configuration of a service sets."}
