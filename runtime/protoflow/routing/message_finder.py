"""Finds a message on several transports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from protoflow.errors import TransportError
from protoflow.routing.routes import Routes
from protoflow.transport.interface import Transport
from protoflow.transport.message_finder import FoundMessages, MessageFinder, MessageQuery


async def find_on_all(
    parts: Mapping[str, Transport], routes: Routes, query: MessageQuery
) -> FoundMessages:
    """Searches each transport for the topics that are published or consumed there."""
    routes.learn(query.subscriptions)
    found = FoundMessages()
    for name, part in parts.items():
        subscriptions = tuple(one for one in query.subscriptions if one.transport == name)
        consumed = {one.topic for one in subscriptions}
        topics = tuple(
            topic for topic in query.topics if topic in consumed or routes.of_topic(topic) == name
        )
        if not topics:
            continue
        if not isinstance(part, MessageFinder):
            found.not_searched.append(
                f"{name}: {', '.join(topics)}: this transport cannot read messages in topics and "
                "queues without consuming them"
            )
            continue
        own = replace(query, topics=topics, subscriptions=subscriptions)
        try:
            more = await part.find_message(own)
        except TransportError as error:  # the other transports are searched nevertheless
            found.not_searched.append(f"{name}: {', '.join(topics)}: {error}")
            continue
        found.sightings += more.sightings
        found.caused += more.caused
        found.groups += more.groups
        found.searched += [f"{name}: {place}" for place in more.searched]
        found.not_searched += [f"{name}: {place}" for place in more.not_searched]
    return found
