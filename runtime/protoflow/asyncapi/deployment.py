"""The facts about a contract beyond the .proto: names, policies and the broker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from protoflow.asyncapi.bindings import Bindings
from protoflow.contract import topics
from protoflow.contract.catalog import Catalog
from protoflow.contract.policy import ResolvedDelivery, resolve
from protoflow.contract.spec import Encoding, MethodSpec
from protoflow.dataclass_record import dataclass_record


@dataclass_record
class Consumer:
    """A consuming method, with all values that the deployment knows.

    Attributes:
        topic: the consumed topic.
        group: the consumer group.
        policy: the policy that holds.
        dead_letters: the dead-letter topic; "" if the transport keeps none.
        waits: whether the broker has to keep waits between two runs.
    """

    topic: str
    group: str
    policy: ResolvedDelivery
    dead_letters: str
    waits: bool = False


@dataclass_record
class Deployment:
    """The place and the settings of a deployed contract.

    Attributes:
        transport: the name of the transport; "" if it is not known.
        consumers: the consumers by the full name of the method.
        topics: the topics to publish to, by what the contract says.
        encoding: of payloads, where the contract names none.
        structured: whether CloudEvents are published in structured mode.
        bindings: what the transport adds.
    """

    transport: str = ""
    consumers: Mapping[str, Consumer] = field(default_factory=dict)
    topics: Mapping[str, str] = field(default_factory=dict)
    encoding: Encoding = Encoding.PROTOBUF
    structured: bool = False
    bindings: Bindings = field(default_factory=Bindings)


def dead_letter_template(method: MethodSpec, policy: ResolvedDelivery) -> str:
    """Returns the contract's dead-letter topic, with the variables of the deployment."""
    return topics.fill(policy.dead_letter_topic, {"topic": method.topic, "group": method.group})[0]


def undeployed(catalog: Catalog) -> Deployment:
    """Returns the facts from the .proto only: variables in names, and built-in policies."""
    consumers = {}
    for method in catalog.methods:
        policy = resolve(method.delivery)
        consumers[method.name] = Consumer(
            topic=method.topic,
            group=method.group,
            policy=policy,
            dead_letters=dead_letter_template(method, policy),
        )
    return Deployment(consumers=consumers)
