"""A contract with the configuration of a service, as AsyncAPI documents describe it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from protoflow import asyncapi
from protoflow.asyncapi import Bindings, Consumer, Deployment
from protoflow.clock import Clock
from protoflow.config.settings import Config
from protoflow.connection import transport_for, transport_settings
from protoflow.contract.catalog import Catalog
from protoflow.contract.names import NameResolver
from protoflow.contract.spec import FileSpec
from protoflow.error_codes import RESOLVED_CONTRACT
from protoflow.errors import ConfigError
from protoflow.registrations.plan import plan
from protoflow.registrations.registration import Registration, of_method
from protoflow.registrations.subscription_plan import SubscriptionPlan
from protoflow.routing.transport import claims_of
from protoflow.transport.interface import Capabilities
from protoflow.transports.built_in import BY_SCHEME


def document(catalog: Catalog, config: Config, **options: Any) -> dict[str, Any]:
    """Returns the AsyncAPI document of a contract with these settings, as plain data.

    Args:
        catalog: the contract.
        config: the settings.
        options: keywords of `protoflow.asyncapi.document`: title, version, payload, perspective.

    Raises:
        ConfigError, RegistrationError, CapabilityError: the same errors as at the start of a
        service.
    """
    comments = asyncapi.comments_of(catalog)
    return asyncapi.document(catalog, deployment_of(catalog, config), comments=comments, **options)


def catalog_of(registrations: Iterable[Registration]) -> Catalog:
    """Returns the contract of registered handlers: the files of their generated modules, with the
    registered methods only. Handlers without a generated class are left out."""
    registrations = list(registrations)
    names = {registration.name for registration in registrations}
    files: dict[str, FileSpec] = {}
    for registration in registrations:
        handler = getattr(registration.call, "__self__", None)
        for base in type(handler).__mro__:
            file = getattr(sys.modules.get(base.__module__), "__protoflow_spec__", None)
            if isinstance(file, FileSpec):
                files[file.source] = file
    return Catalog(_only(file, names) for file in files.values())


def _only(file: FileSpec, names: Collection[str]) -> FileSpec:
    services = [
        replace(service, methods=tuple(one for one in service.methods if one.name in names))
        for service in file.services
    ]
    return replace(file, services=tuple(one for one in services if one.methods))


def deployment_of(catalog: Catalog, config: Config) -> Deployment:
    """Returns names, policies and bindings with these settings. Raises as `document`."""
    capabilities = claims_of(transport_for(config, Clock()))
    return Deployment(
        transport=", ".join(dict.fromkeys(url.scheme for url in config.urls)),
        consumers=_consumers(subscriptions(catalog, config, capabilities), capabilities),
        topics=_topics(catalog, config),
        encoding=config.encoding,
        structured=config.structured,
        bindings=_bindings(config),
    )


def subscriptions(
    catalog: Catalog, config: Config, capabilities: Capabilities | Mapping[str, Capabilities]
) -> list[SubscriptionPlan]:
    """Returns the subscriptions for handlers of every method. Raises as `document`."""
    registrations = [of_method(method, _never_called, sync=False) for method in catalog.methods]
    return plan(registrations, config, capabilities)


def _consumers(
    plans: Sequence[SubscriptionPlan], capabilities: Capabilities | Mapping[str, Capabilities]
) -> dict[str, Consumer]:
    def kept(transport: str) -> bool:
        if isinstance(capabilities, Capabilities):
            return capabilities.at_least_once
        return capabilities[transport].at_least_once

    return {
        handler.registration.name: Consumer(
            topic=handler.topic,
            group=handler.group,
            policy=handler.policy,
            dead_letters=handler.dead_letter_topic if kept(handler.transport) else "",
            waits=one.settings.needs_broker_retry,
        )
        for one in plans
        for handler in one.handlers
    }


def _topics(catalog: Catalog, config: Config) -> dict[str, str]:
    """Returns the physical topics that the contract publishes to. Raises ConfigError."""
    names = NameResolver(config.namespace, config.variables)
    templates = {spec.topic for spec in catalog.messages.values() if spec.topic}
    templates |= {
        publication.topic
        for file in catalog.files
        for producer in file.producers
        for publication in producer.publications.values()
    }
    templates |= {one.publication.topic for one in catalog.methods if one.publication}
    found = {template: names.physical(template, "topic") for template in sorted(templates)}
    if names.problems:
        raise ConfigError(names.problems, code=RESOLVED_CONTRACT)
    return found


def _bindings(config: Config) -> Bindings:
    built_in = BY_SCHEME.get(config.url.scheme)
    if config.transports:  # names and servers of one transport would be wrong on the others
        return Bindings()
    if built_in is None or not built_in.bindings:
        return Bindings()
    module, _, name = built_in.bindings.partition(":")
    made: Any = getattr(importlib.import_module(f"protoflow.transports.{module}"), name)
    bindings: Bindings = made(transport_settings(config, Clock()))
    return bindings


async def _never_called(*_: Any) -> None:
    raise NotImplementedError
