"""Facts about a contract that are not in the .proto: names, policies and the broker."""

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
        policy: the resolved policy.
        dead_letters: the dead-letter topic; "" if the transport stores no dead letters.
        waits: whether the broker has to store waits between two runs.
    """

    topic: str
    group: str
    policy: ResolvedDelivery
    dead_letters: str
    waits: bool = False


@dataclass_record
class Deployment:
    """The transport and the settings of a deployed contract.

    Attributes:
        transport: the name of the transport; "" if it is not known.
        consumers: the consumers by the full name of the method.
        topics: the physical topics of publications, by the topic in the contract.
        encoding: the encoding of payloads for which the contract sets none.
        structured: whether CloudEvents are published in structured mode.
        bindings: the parts of the document that depend on the transport.
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
    """Returns the facts that the .proto contains: names with variables, and built-in policies."""
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
