"""From registrations to subscriptions: topics filled, policies resolved, demands checked."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from protoflow.config.settings import Config
from protoflow.contract.names import NameResolver, namespaced
from protoflow.contract.policy import ResolvedDelivery, merge, problems, resolve
from protoflow.contract.spec import BATCH_MESSAGES, OnExhausted, Ordering, Start
from protoflow.errors import CapabilityError, ConfigError, RegistrationError
from protoflow.registrations import cycles, sharing
from protoflow.registrations.registration import Registration
from protoflow.registrations.subscription_plan import HandlerPlan, SubscriptionPlan
from protoflow.transport.interface import Capabilities, SubscriptionSettings

_log = logging.getLogger("protoflow.service")

_STRENGTH = {Ordering.NONE: 0, Ordering.PER_KEY: 1, Ordering.PER_PARTITION: 2}


def plan(
    registrations: Sequence[Registration], config: Config, capabilities: Capabilities
) -> list[SubscriptionPlan]:
    """The subscriptions of a service.

    Raises:
        ConfigError: names that cannot be filled, overrides of handlers that do not exist.
        RegistrationError: handlers that contradict each other.
        CapabilityError: demands that the transport cannot meet.
    """
    names = NameResolver(config.namespace, config.variables)
    handlers = [_handler(registration, config, names) for registration in registrations]
    known = {registration.name for registration in registrations}
    names.problems += config.unknown_handlers(known)
    if names.problems:
        raise ConfigError(names.problems)
    groups: dict[tuple[str, str], list[HandlerPlan]] = {}
    for handler in handlers:
        groups.setdefault((handler.topic, handler.group), []).append(handler)
    conflicts = cycles.problems(handlers)
    plans = [_subscription(group, config, conflicts) for group in groups.values()]
    if conflicts:
        raise RegistrationError(conflicts)
    return _within(plans, capabilities, config)


def _handler(registration: Registration, config: Config, names: NameResolver) -> HandlerPlan:
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
    letters = names.fill(
        policy.dead_letter_topic,
        f"{name}: dead-letter topic",
        {"topic": plain_topic, "group": plain_group},
    )
    return HandlerPlan(
        registration=registration,
        topic=topic,
        group=group,
        policy=policy,
        # Long topics and groups make dead-letter topics beyond 200 characters: transports cut them.
        dead_letter_topic=namespaced(config.namespace, letters),
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
        # A batch that may not be in flight whole would always wait for its time.
        max_in_flight=max(config.max_in_flight or 16 * policy.concurrency, _largest(handlers)),
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
    )


def _largest(handlers: Sequence[HandlerPlan]) -> int:
    """The messages of the largest batch; 0 where none is gathered."""
    return max(
        registration.batch.max_messages or BATCH_MESSAGES if registration.batched else 0
        for registration in (handler.registration for handler in handlers)
    )


def _longest_wait(policy: ResolvedDelivery) -> float:
    # RetryAfter may ask for any wait, so a policy with retries may always need the broker.
    return float("inf") if policy.retry.max_attempts > 1 else 0.0


def _within(
    plans: Sequence[SubscriptionPlan], capabilities: Capabilities, config: Config
) -> list[SubscriptionPlan]:
    """Refuses demands that the transport cannot meet; defaults yield, with a warning."""
    refused: list[str] = []
    for subscription in plans:
        for handler in subscription.handlers:
            refused += _refused(handler, capabilities, config)
    if refused:
        raise CapabilityError(sorted(set(refused)))
    scheme = config.url.scheme
    if plans and not capabilities.at_least_once:
        _log.warning(
            "%s delivers at most once: retries are kept in memory and dead letters are dropped",
            scheme,
        )
    return list(plans)


def _refused(handler: HandlerPlan, capabilities: Capabilities, config: Config) -> Iterable[str]:
    policy, name = handler.policy, handler.registration.name
    scheme = config.url.scheme
    demands = policy.demands

    def cannot(what: str, mend: str) -> str:
        return f"{name}: {scheme} cannot {what}; {mend}"

    if policy.ordering is Ordering.PER_KEY and not capabilities.per_key:
        yield cannot("keep order per key", "choose another transport or ORDERING_NONE")
    if policy.ordering is Ordering.PER_PARTITION and not capabilities.per_partition:
        yield cannot("keep order per partition", "choose another transport or ORDERING_NONE")
    if policy.atomic and not capabilities.atomic:
        yield cannot("publish and settle atomically", "leave `atomic` unset")
    elif (
        policy.atomic
        and capabilities.atomic_on_demand
        and policy.ordering is Ordering.PER_KEY
        and policy.retry.max_backoff > config.retry_in_place
        and policy.retry.max_attempts > 1
    ):
        yield cannot(
            f"hold a key for {policy.retry.max_backoff:g} s and be atomic",
            f"shorten `retry.max_backoff` to retry_in_place ({config.retry_in_place:g} s)",
        )
    if handler.registration.broadcast and not capabilities.broadcast:
        yield cannot("broadcast", "leave `broadcast` unset")
    if policy.start is Start.EARLIEST and "start" in demands and not capabilities.retains:
        yield cannot("deliver what was published before the group", "leave `start` unset")
    if not capabilities.at_least_once:
        if "retry.max_attempts" in demands and policy.retry.max_attempts > 1:
            yield cannot("retry safely: it delivers at most once", "leave `retry` unset")
        if demands & {"dead_letter.topic", "dead_letter.on_exhausted"} and (
            policy.on_exhausted is not OnExhausted.DROP
        ):
            yield cannot(
                "keep dead letters", "set on_exhausted to DROP or choose another transport"
            )
    if capabilities.leases:
        if policy.timeout is not None and policy.timeout > config.max_hold:
            yield cannot(
                f"hold a message for {policy.timeout:g} s, only for {config.max_hold:g} s",
                "shorten `timeout` or raise max_hold",
            )
        waits = policy.ordering is not Ordering.NONE or not capabilities.broker_retry
        if waits and policy.retry.max_backoff > config.max_hold and policy.retry.max_attempts > 1:
            yield cannot(
                f"hold a message for {policy.retry.max_backoff:g} s between two runs",
                "shorten `retry.max_backoff` or raise max_hold",
            )
