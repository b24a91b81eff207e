"""The plan of a contract with settings: topics, groups and policies, without a broker."""

from __future__ import annotations

from dataclasses import dataclass

from protoflow.clock import Clock
from protoflow.config import Config
from protoflow.connection import transport_for
from protoflow.contract.catalog import Catalog
from protoflow.contract.names import NameResolver
from protoflow.contract.spec import PublicationSpec
from protoflow.deployment import subscriptions
from protoflow.error_codes import RESOLVED_CONTRACT
from protoflow.errors import ConfigError
from protoflow.registrations.subscription_plan import HandlerPlan
from protoflow.routing.transport import claims_of
from protoflow.transport import SubscriptionSettings, Topology


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A contract with settings.

    Attributes:
        handlers: one plan for each consuming method.
        published: the physical topics that are published to and not consumed.
        topology: the topics and groups that a service with all these handlers needs.
    """

    handlers: tuple[HandlerPlan, ...]
    published: tuple[str, ...]
    topology: Topology


def planned(catalog: Catalog, config: Config) -> Planned:
    """Returns the plan of all methods of a contract.

    Raises:
        ConfigError, RegistrationError, CapabilityError: as when a service starts.
    """
    capabilities = claims_of(transport_for(config, Clock()))
    plans = subscriptions(catalog, config, capabilities)
    handlers = tuple(handler for one in plans for handler in one.handlers)
    topics = {topic_of(method.publication, config) for method in catalog.methods}
    topics |= {physical(spec.topic, config) for spec in catalog.messages.values() if spec.topic}
    published = tuple(sorted(topics - {"", *(handler.topic for handler in handlers)}))
    return Planned(
        handlers=handlers,
        published=published,
        topology=Topology(
            subscriptions=tuple(one.settings for one in plans),
            topics=tuple(sorted(topics - {""})),
        ),
    )


def subscriptions_of(catalog: Catalog, config: Config) -> tuple[SubscriptionSettings, ...]:
    """Returns the subscriptions of a contract if there are several transports, where they name the
    places to read; otherwise none, so that no mistake in the contract matters."""
    return planned(catalog, config).topology.subscriptions if config.transports else ()


def topic_of(publication: PublicationSpec | None, config: Config) -> str:
    """Returns the physical topic of a publication; "" if it has none. Raises ConfigError."""
    return "" if publication is None else physical(publication.topic, config)


def physical(template: str, config: Config) -> str:
    """Returns a topic with its variables filled in and the namespace. Raises ConfigError."""
    names = NameResolver(config.namespace, config.variables)
    found = names.physical(template, "topic")
    if names.problems:
        raise ConfigError(names.problems, code=RESOLVED_CONTRACT)
    return found


def _consumed(catalog: Catalog, config: Config) -> set[str]:
    """Returns the physical topics of a contract, without those whose variables have no values."""
    found: set[str] = set()
    for method in catalog.methods:
        names = NameResolver(config.namespace, config.variables)
        topic = names.physical(method.topic, "topic")
        if not names.problems:
            found.add(topic)
    return found


def topic_named(name: str, catalog: Catalog, config: Config) -> str:
    """Returns the broker's topic for a message type, a topic of the contract, or itself."""
    spec = catalog.message(name)
    if spec is not None and spec.topic:
        return physical(spec.topic, config)
    if ".." in name or name in _consumed(catalog, config):
        return name
    return physical(name, config)
