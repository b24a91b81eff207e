"""The one place that decides on which transport a topic or a group is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from protoflow.config.conversion import env_form, named
from protoflow.config.named_transports import DEFAULT, RouteSettings
from protoflow.config.settings import Config
from protoflow.contract import topics
from protoflow.contract.topic_source import TopicSources
from protoflow.transport.settings import SubscriptionSettings
from protoflow.transports.built_in import messaging_system

_log = logging.getLogger("protoflow.service")

#: The number of topics whose routes are remembered; names of topics can come from data.
_REMEMBERED: Final = 10_000


class Routes:
    """The transports of topics, groups and handlers, by name.

    Messages are published to the transport of their topic. A handler consumes from its own
    transport, else from that of its group, else from that of its topic. Retries and dead letters
    stay on the transport from which the message was consumed.

    Args:
        config: the settings.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._topics = _filled(config.routes["topics"], config)
        self._groups = _filled(config.routes["groups"], config)
        self._published: dict[str, str] = {}
        #: What subscriptions use: the transports of their topics, and of their dead letters.
        self._consumed: dict[tuple[str, str], str] = {}
        self._read: dict[str, str] = {}
        self._dead_letters: dict[str, str] = {}

    def of_handler(self, handler: str, topic: str, group: str) -> str:
        """Returns the transport from which a handler consumes a topic in a group."""
        by_handler = named(self._config.handler_transports, handler)
        return by_handler or self.of_group(topic, group)

    def sources(self, transport: str) -> TopicSources:
        """Returns the places of other programs from which topics on a transport are consumed."""
        table = {
            topic: route.source
            for topic, route in self._topics.items()
            if route.source is not None and (route.transport or DEFAULT) == transport
        }
        # Retries and dead letters, which have two dots in their names, are never there.
        return TopicSources(
            (lambda topic: None if ".." in self.plain(topic) else named(table, self.plain(topic)))
            if table
            else None
        )

    def of_group(self, topic: str, group: str) -> str:
        """Returns the transport from which a group consumes a topic, without the handlers'."""
        by_group = named(self._groups, self.plain(group))
        return (by_group and by_group.transport) or self.of_topic(topic)

    def of_topic(self, topic: str) -> str:
        """Returns the transport to which messages of a topic are published."""
        found = self._published.get(topic)
        if found is None:
            found = self._rule(topic) or DEFAULT
            if len(self._published) >= _REMEMBERED:
                self._published.clear()
            self._published[topic] = found
        return found

    def of_sent(self, topic: str) -> str:
        """Returns the transport to which messages of a topic are sent: also dead letters and
        retries, which are on the transport of their group."""
        if topic in self._dead_letters:
            return self._dead_letters[topic]
        consumed, dots, rest = self.plain(topic).partition("..")
        if not dots:
            return self.of_topic(topic)
        group = rest.partition("..")[0]
        return self.consumed_from(self._physical(consumed), self._physical(group))

    def of_place(self, topic: str) -> str:
        """Returns the transport on which an existing topic is read: also dead letters, and topics
        that are only consumed here."""
        if topic in self._read and topic not in self._dead_letters and self._rule(topic) is None:
            return self._read[topic]
        return self.of_sent(topic)

    def consumed_from(self, topic: str, group: str) -> str:
        """Returns the transport from which a subscription consumes."""
        return self._consumed.get((topic, group)) or self.of_group(topic, group)

    def learn(self, subscriptions: Iterable[SubscriptionSettings]) -> None:
        """Notes the topics and dead-letter topics of subscriptions, for reading."""
        for one in subscriptions:
            self._dead_letters.update(dict.fromkeys(one.dead_letter_topics, one.transport))
            self._consumed[one.topic, one.group] = one.transport
            self._read.setdefault(one.topic, one.transport)

    def _rule(self, topic: str) -> str | None:
        rule = named(self._topics, self.plain(topic))
        return rule.transport or None if rule else None

    def plain(self, name: str) -> str:
        """Returns a topic or group without the namespace."""
        namespace = self._config.namespace
        return name.removeprefix(f"{namespace}..") if namespace else name

    def _physical(self, name: str) -> str:
        namespace = self._config.namespace
        return f"{namespace}..{name}" if namespace else name


def system_of(config: Config, transport: str = DEFAULT) -> str:
    """Returns `messaging.system` of a transport of the settings."""
    return messaging_system(config.transport_named(transport).url.scheme)


def shown_transports(config: Config) -> str:
    """Returns the URLs of the transports without secrets, for logs."""
    named = (f"{name} {config.transport_named(name).url.safe}" for name in config.transports)
    return ", ".join((config.url.safe, *named))


def warn_of_unused(config: Config, used: Collection[str]) -> None:
    """Warns of topics of the settings that no handler consumes or publishes: a mistyped name
    would leave its topic on the default transport."""
    if not config.topics:
        return
    known = set(map(Routes(config).plain, used))
    for name in config.topics:
        filled = topics.fill(name, config.variables)[0]
        if filled not in known and filled not in map(env_form, known):
            _log.warning(
                "a topic of the settings is not used by any handler", extra={"topic": name}
            )


def output_systems(config: Config) -> Callable[[str], str]:
    """Returns a function that returns `messaging.system` of the broker that a topic is published
    to."""
    if not config.transports:
        system = system_of(config)
        return lambda _topic: system
    routes = Routes(config)
    return lambda topic: system_of(config, routes.of_topic(topic))


def _filled(table: Mapping[str, RouteSettings], config: Config) -> dict[str, RouteSettings]:
    """Returns a table with the variables in its names filled."""
    return {topics.fill(name, config.variables)[0]: route for name, route in table.items()}
