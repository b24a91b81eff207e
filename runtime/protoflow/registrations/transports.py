"""Checks of handlers that consume from and publish to several transports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from protoflow.config.named_transports import DEFAULT
from protoflow.config.settings import Config
from protoflow.contract.names import NameResolver
from protoflow.registrations.registration import published_topic
from protoflow.routing.routes import Routes

if TYPE_CHECKING:
    from protoflow.registrations.subscription_plan import HandlerPlan


def shown(name: str, config: Config) -> str:
    """Returns a transport as text: its scheme, after its name if it is not the default one."""
    scheme = config.transport_named(name).url.scheme
    return scheme if name == DEFAULT else f"transport {name} ({scheme})"


def conflicts(handlers: Sequence[HandlerPlan]) -> Iterator[str]:
    """Yields dead-letter topics that are used on two transports."""
    owners: dict[str, HandlerPlan] = {}
    for handler in handlers:
        owner = owners.setdefault(handler.dead_letter_topic, handler)
        if owner.transport != handler.transport:
            yield (
                f"{handler.registration.name} on {handler.transport} and "
                f"{owner.registration.name} on {owner.transport} both send dead letters to "
                f"{handler.dead_letter_topic}; give one of them another dead_letter.topic"
            )
    for handler in handlers:
        source = owners.get(handler.topic)
        if source is not None and source.transport != handler.transport:
            yield (
                f"{handler.registration.name} consumes {handler.topic} from {handler.transport}, "
                f"but {source.registration.name} sends its dead letters there on "
                f"{source.transport}; set handlers.{handler.registration.name!r}.transport to "
                f"{source.transport}"
            )


def left_by_atomic(handler: HandlerPlan, config: Config, routes: Routes) -> Iterator[str]:
    """Yields the transport to which an atomic handler publishes, if it is another one."""
    template = published_topic(handler.registration)
    if not template or not handler.policy.atomic:
        return
    names = NameResolver(config.namespace, config.variables)
    topic = names.physical(template, handler.registration.name)
    target = routes.of_topic(topic)
    if target != handler.transport:
        yield (
            f"{handler.registration.name}: `atomic` holds within one transport, but it consumes "
            f"{handler.topic} from {handler.transport} and publishes {topic} to {target}; leave "
            "`atomic` unset, or put both on one transport"
        )
