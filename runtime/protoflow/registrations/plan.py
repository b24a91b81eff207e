"""Registrations become subscriptions: topics are filled, policies resolved, demands checked."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from protoflow.config.conversion import unknown
from protoflow.config.named_transports import DEFAULT
from protoflow.config.settings import Config
from protoflow.contract import topics
from protoflow.contract.names import NameResolver, namespaced
from protoflow.contract.policy import ResolvedDelivery, merge, problems, resolve
from protoflow.contract.spec import BATCH_MESSAGES, OnExhausted, Ordering, Start
from protoflow.error_codes import RESOLVED_CONTRACT
from protoflow.errors import CapabilityError, ConfigError, RegistrationError
from protoflow.registrations import cycles, sharing, sources, transports
from protoflow.registrations.registration import Registration
from protoflow.registrations.subscription_plan import HandlerPlan, SubscriptionPlan
from protoflow.routing.routes import Routes
from protoflow.transport.interface import Capabilities, SubscriptionSettings

_log = logging.getLogger("protoflow.service")
#: This many of the largest batches fit into the messages in flight. More messages are requested
#: when a quarter is free, and Kafka gives 3/8 to one partition: otherwise a batch of one partition
#: would never fill.
_BATCHES: Final = 3

_STRENGTH = {Ordering.NONE: 0, Ordering.PER_KEY: 1, Ordering.PER_PARTITION: 2}


def plan(
    registrations: Sequence[Registration],
    config: Config,
    capabilities: Capabilities | Mapping[str, Capabilities],
) -> list[SubscriptionPlan]:
    """Returns the subscriptions of a service.

    Args:
        registrations: the handlers.
        config: the settings.
        capabilities: those of the transport, or of several transports by name.

    Raises:
        ConfigError: names cannot be filled, or the config names handlers that do not exist.
        RegistrationError: handlers contradict each other.
        CapabilityError: the transport cannot meet a demand.
    """
    names = NameResolver(config.namespace, config.variables)
    routes = Routes(config)
    handlers = [_handler(registration, config, names, routes) for registration in registrations]
    known = {registration.name for registration in registrations}
    names.problems += config.unknown_handlers(known)
    if config.groups:
        filled = {topics.fill(item.group, config.variables)[0] for item in registrations}
        filled.update(item.group for item in registrations)
        names.problems += unknown("groups", config.groups, filled, "group consumes here")
    if names.problems:
        raise ConfigError(names.problems, code=RESOLVED_CONTRACT)
    groups: dict[tuple[str, str], list[HandlerPlan]] = {}
    for handler in handlers:
        groups.setdefault((handler.topic, handler.group), []).append(handler)
    conflicts = cycles.problems(handlers)
    plans = [_subscription(group, config, conflicts) for group in groups.values()]
    conflicts += transports.conflicts(handlers)
    if isinstance(capabilities, Capabilities):
        capabilities = {DEFAULT: capabilities}
    conflicts += sources.conflicts(plans, capabilities)
    if conflicts:
        raise RegistrationError(conflicts)
    sources.warn_of_unused(plans, routes)
    return _within(plans, capabilities, config, routes)


def _handler(
    registration: Registration, config: Config, names: NameResolver, routes: Routes
) -> HandlerPlan:
    override = config.policy_of(registration.name)
    contract = merge(config.defaults, registration.delivery)
    wanted, had = override.ordering, contract.ordering or Ordering.NONE
    if wanted is not None and _STRENGTH[wanted] < _STRENGTH[had]:
        names.problems.append(
            f"handlers.{registration.name!r}.ordering: {wanted} is weaker than the contract's {had}"
        )
    name = registration.name
    demanded = merge(contract, override)
    names.problems += [f"{name}: {text}" for text in problems(demanded)]
    policy = resolve(demanded)
    topic = names.physical(registration.topic, f"{name}: topic")
    group = names.physical(registration.group, f"{name}: consumer group")
    plain_topic = names.fill(registration.topic, name)
    plain_group = names.fill(registration.group, name)
    dead_letter_topic = names.fill(
        policy.dead_letter_topic,
        f"{name}: dead-letter topic",
        {"topic": plain_topic, "group": plain_group},
    )
    transport = routes.of_handler(name, topic, group)
    return HandlerPlan(
        registration=registration,
        topic=topic,
        group=group,
        policy=policy,
        # Long topics and groups make dead-letter topics longer than 200 characters: transports cut
        # them.
        dead_letter_topic=namespaced(config.namespace, dead_letter_topic),
        transport=transport,
        source=routes.sources(transport).of(topic),
    )


def _subscription(
    handlers: list[HandlerPlan], config: Config, conflicts: list[str]
) -> SubscriptionPlan:
    first = handlers[0]
    routes: dict[str, HandlerPlan] = {}
    for handler in handlers:
        for kind in handler.registration.types or ("",):
            taken = routes.setdefault(kind, handler)
            if taken is not handler:
                conflicts.append(
                    f"{handler.registration.name} and {taken.registration.name} both handle "
                    f"{kind or 'every type'} of {first.topic} in group {first.group}; give one of "
                    "them a consumer_group of its own"
                )
    handlers = sharing.shared(handlers, config, conflicts)
    policy = handlers[0].policy
    if policy.ordering is Ordering.PER_KEY and not any(
        handler.registration.message is None or handler.registration.message.partition_key
        for handler in handlers
    ):
        conflicts.append(
            f"{first.registration.name}: ordering per_key needs a partition key; mark a field with "
            "(protoflow.v1.field).partition_key"
        )
    by_name = {handler.registration.name: handler for handler in handlers}
    return SubscriptionPlan(
        settings=_settings(handlers, config),
        handlers=tuple(handlers),
        routes={kind: by_name[route.registration.name] for kind, route in routes.items()},
    )


def _settings(handlers: Sequence[HandlerPlan], config: Config) -> SubscriptionSettings:
    first = handlers[0]
    policy = first.policy
    return SubscriptionSettings(
        name=f"{first.topic}/{first.group}",
        topic=first.topic,
        group=first.group,
        ordering=policy.ordering,
        concurrency=policy.concurrency,
        max_in_flight=max(
            config.max_in_flight or 16 * policy.concurrency, _BATCHES * _largest(handlers)
        ),
        max_in_flight_bytes=config.max_in_flight_bytes,
        start=Start.LATEST if first.registration.broadcast else policy.start,
        broadcast=first.registration.broadcast,
        atomic=policy.atomic,
        needs_broker_retry=policy.ordering is Ordering.NONE
        and any(_longest_wait(handler.policy) > config.retry_in_place for handler in handlers),
        dead_letter_topics=tuple(sorted({handler.dead_letter_topic for handler in handlers})),
        lease=config.lease,
        max_hold=config.max_hold,
        rebalance_drain=config.rebalance_drain,
        transport=first.transport,
        source=first.source,
    )


def _largest(handlers: Sequence[HandlerPlan]) -> int:
    """Returns the number of messages in the largest batch; 0 if there is no batch handler."""
    return max(
        registration.batch.max_messages or BATCH_MESSAGES if registration.batched else 0
        for registration in (handler.registration for handler in handlers)
    )


def _longest_wait(policy: ResolvedDelivery) -> float:
    # RetryAfter may ask for any wait, so every policy with retries may need the broker.
    return float("inf") if policy.retry.max_attempts > 1 else 0.0


def _within(
    plans: Sequence[SubscriptionPlan],
    capabilities: Mapping[str, Capabilities],
    config: Config,
    routes: Routes,
) -> list[SubscriptionPlan]:
    """Refuses demands that a transport cannot meet; defaults are reduced with a warning."""
    refused: list[str] = []
    for subscription in plans:
        for handler in subscription.handlers:
            refused += _Demands(handler, capabilities[handler.transport], config).refused()
            refused += sources.refused(handler, capabilities[handler.transport], config)
            refused += transports.left_by_atomic(handler, config, routes)
    if refused:
        raise CapabilityError(sorted(set(refused)))
    for name in sorted({subscription.settings.transport for subscription in plans}):
        if not capabilities[name].at_least_once:
            _log.warning(
                "the transport delivers at most once: retries stay in memory, dead letters are "
                "dropped",
                extra={"transport": config.transport_named(name).url.scheme},
            )
    return list(plans)


class _Demands:
    """The demands of one handler that the transport cannot meet, one sentence each."""

    def __init__(self, handler: HandlerPlan, capabilities: Capabilities, config: Config) -> None:
        self._handler = handler
        self._policy = handler.policy
        self._capabilities = capabilities
        self._config = config

    def refused(self) -> Iterable[str]:
        """Yields the sentences."""
        yield from self._of_the_subscription()
        if not self._capabilities.at_least_once:
            yield from self._of_retries()
        if self._capabilities.leases:
            yield from self._of_leases()

    def _cannot(self, what: str, fix: str) -> str:
        transport = transports.shown(self._handler.transport, self._config)
        return f"{self._handler.registration.name}: {transport} cannot {what}; {fix}"

    def _of_the_subscription(self) -> Iterable[str]:
        policy, capabilities = self._policy, self._capabilities
        other = "choose another transport or ORDERING_NONE"
        if capabilities.ordering_option:
            other = f"set its option {capabilities.ordering_option}, {other}"
        if policy.ordering is Ordering.PER_KEY and not capabilities.per_key:
            yield self._cannot("keep order per key", other)
        if policy.ordering is Ordering.PER_PARTITION and not capabilities.per_partition:
            yield self._cannot("keep order per partition", other)
        if policy.atomic and not capabilities.atomic:
            yield self._cannot("publish and settle atomically", "leave `atomic` unset")
        elif self._waits_too_long_to_be_atomic():
            yield self._cannot(
                f"hold a key for {policy.retry.max_backoff:g} s and be atomic",
                "shorten `retry.max_backoff` to retry_in_place "
                f"({self._config.retry_in_place:g} s)",
            )
        if self._handler.registration.broadcast and not capabilities.broadcast:
            yield self._cannot("broadcast", "leave `broadcast` unset")
        demanded = policy.start is Start.EARLIEST and "start" in policy.demands
        if demanded and not capabilities.retains:
            yield self._cannot(
                "deliver messages that are older than the group", "leave `start` unset"
            )

    def _waits_too_long_to_be_atomic(self) -> bool:
        policy = self._policy
        return (
            policy.atomic
            and self._capabilities.atomic_on_demand
            and policy.ordering is Ordering.PER_KEY
            and policy.retry.max_backoff > self._config.retry_in_place
            and policy.retry.max_attempts > 1
        )

    def _of_retries(self) -> Iterable[str]:
        policy = self._policy
        if "retry.max_attempts" in policy.demands and policy.retry.max_attempts > 1:
            yield self._cannot("retry safely: it delivers at most once", "leave `retry` unset")
        demanded = policy.demands & {"dead_letter.topic", "dead_letter.on_exhausted"}
        if demanded and policy.on_exhausted is not OnExhausted.DROP:
            yield self._cannot(
                "keep dead letters", "set on_exhausted to DROP or choose another transport"
            )

    def _of_leases(self) -> Iterable[str]:
        policy, max_hold = self._policy, self._config.max_hold
        if policy.timeout is not None and policy.timeout > max_hold:
            yield self._cannot(
                f"hold a message for {policy.timeout:g} s, only for {max_hold:g} s",
                "shorten `timeout` or raise max_hold",
            )
        waits = policy.ordering is not Ordering.NONE or not self._capabilities.broker_retry
        if waits and policy.retry.max_backoff > max_hold and policy.retry.max_attempts > 1:
            yield self._cannot(
                f"hold a message for {policy.retry.max_backoff:g} s between two runs",
                "shorten `retry.max_backoff` or raise max_hold",
            )
