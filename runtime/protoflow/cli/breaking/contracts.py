"""A contract with settings, built from descriptors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from protoflow.breaking.contract import Contract, Event
from protoflow.cli import plan
from protoflow.cli.breaking.places import places
from protoflow.cli.breaking.sources import Source
from protoflow.cli.breaking.specs import Descriptors
from protoflow.config import Config
from protoflow.config.conversion import unknown
from protoflow.config.named_transports import HandlerPolicies
from protoflow.contract import topics
from protoflow.contract.catalog import Catalog
from protoflow.contract.spec import MessageSpec
from protoflow.error_codes import OLD_CONTRACT
from protoflow.errors import CapabilityError, ConfigError, RegistrationError

V = TypeVar("V")


def contract(source: Source, config: Config) -> Contract:
    """Returns the contract of a source with its settings.

    Raises:
        ConfigError: its annotations have mistakes, or its service would not start.
    """
    try:
        return _contract(source, config)
    except (ConfigError, RegistrationError, CapabilityError) as error:
        problems = getattr(error, "problems", None) or [str(error)]
        raise ConfigError(
            (f"{source.name}: {problem}" for problem in problems), code=OLD_CONTRACT
        ) from None


def _contract(source: Source, config: Config) -> Contract:
    descriptors = Descriptors(source.image)
    catalog = Catalog(descriptors.files())
    # Names are compared without the namespace, whose change counts only once.
    bare = _for(catalog, replace(config, namespace="", file=None, environ={}))
    return Contract(
        handlers=plan.planned(catalog, bare).handlers,
        messages={
            spec.message_class.DESCRIPTOR.full_name: spec for spec in catalog.messages.values()
        },
        events=tuple(_events(catalog, bare)),
        places=places(descriptors.contracts, source.shown),
        config=config,
    )


def _for(catalog: Catalog, config: Config) -> Config:
    """Returns the settings without those for handlers and groups that this version does not
    have, and without transports that nothing uses then."""
    names = [method.name for method in catalog.methods]
    groups = [topics.fill(method.group, config.variables)[0] for method in catalog.methods]
    handlers = HandlerPolicies(
        _known(config.handlers, names), _known(config.handler_transports, names)
    )
    routes = _known(config.routes["groups"], groups)
    used = {one.transport for one in (*config.routes["topics"].values(), *routes.values())}
    used.update(handlers.transports.values())
    transports = {name: one for name, one in config.transports.items() if name in used}
    return replace(config, handlers=handlers, groups=routes, transports=transports, environ={})


def _known(table: Mapping[str, V], names: Iterable[str]) -> dict[str, V]:
    known = list(names)
    return {name: one for name, one in table.items() if not unknown("", [name], known, "")}


def _events(catalog: Catalog, config: Config) -> Iterable[Event]:
    def event(source: str, message: MessageSpec, topic: str) -> Event:
        return Event(
            source=source,
            message=message.message_class.DESCRIPTOR.full_name,
            type=message.type,
            topic=plan.physical(topic, config),
        )

    for message in catalog.messages.values():
        if message.topic:
            yield event(message.message_class.DESCRIPTOR.full_name, message, message.topic)
    for method in catalog.methods:
        if method.publication is not None:
            yield event(method.name, method.publication.message, method.publication.topic)
