"""The HTTP transport: senders keep what is not handled, because HTTP stores nothing."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from protoflow.contract.spec import Ordering
from protoflow.error_codes import TRANSPORT_OPTION, TRANSPORT_URL
from protoflow.errors import CapabilityError, ConfigError, PublishError
from protoflow.http_server.addresses import is_loopback
from protoflow.message import Message
from protoflow.transport.interface import (
    Capabilities,
    Subscription,
    SubscriptionListener,
    SubscriptionSettings,
    Topology,
    TopologyMode,
    TransportSettings,
)
from protoflow.transports.http.endpoint import Store, TopicEndpoint
from protoflow.transports.http.options import HttpOptions
from protoflow.transports.http.publisher import HttpPublisher
from protoflow.transports.http.receiver import Address, Receiver, receiver_of
from protoflow.transports.http.subscription import HttpSubscription

_PORTS = {"http": 80, "https": 443}


class HttpTransport:
    """Implements `Transport`: a request is answered when every group has settled its messages."""

    def __init__(self, settings: TransportSettings, options: HttpOptions) -> None:
        self.settings = settings
        self.options = options
        self.publisher = HttpPublisher(settings, options)
        self.capabilities = Capabilities(
            processes=True, max_message_bytes=options.max_message_bytes
        )
        self._address = _address(settings)
        self._receiver: Receiver | None = None
        self._endpoints: dict[str, TopicEndpoint] = {}
        self._subscriptions: list[HttpSubscription] = []
        self._groups: dict[str, set[str]] = defaultdict(set)

    async def open(self) -> None:
        """See `Transport.open`. The port is opened by the first subscription."""
        self.publisher.open()

    async def close(self) -> None:
        """See `Transport.close`. Senders get back what was not settled."""
        for subscription in self._subscriptions:
            subscription.close()
        await self._leave()
        await self.publisher.close()

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Notes the groups of each topic, because all must get a message. Nothing is created."""
        for settings in topology.subscriptions:
            self._groups[settings.topic].add(settings.group)
            self.publisher.dead_letter_topics |= {*settings.dead_letter_topics}

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """See `Transport.submit`; the order is not kept."""
        return self.publisher.submit(messages, self._without_target)

    async def subscribe(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> Subscription:
        """See `Transport.subscribe`."""
        if settings.ordering is not Ordering.NONE or settings.atomic or settings.broadcast:
            raise CapabilityError(
                f"{settings.name}: HTTP keeps no order, has no transactions and no broadcast; use"
                " hand_off to store messages in a transport that can"
            )
        endpoint = await self.endpoint(settings.topic)
        subscription = HttpSubscription(settings, listener)
        endpoint.expected |= self._groups[settings.topic]
        endpoint.subscriptions.append(subscription)
        self._subscriptions.append(subscription)
        return subscription

    def health(self) -> str | None:
        """See `Transport.health`. Targets that fail do not affect what is received."""
        return None

    def warnings(self) -> Mapping[str, str]:
        """See `ReportsWarnings`: the targets that are disabled."""
        return self.publisher.warnings()

    def topics_of_options(self) -> Mapping[str, Collection[str]]:
        """See `NamesTopics`."""
        return self.options.topics()

    async def endpoint(self, topic: str, store: Store | None = None) -> TopicEndpoint:
        """Returns the endpoint of a topic; the first one opens the port. Raises ConfigError."""
        if topic in self._endpoints:
            return self._endpoints[topic]
        url, options = self.settings.url, self.options
        wanted = options.endpoint(topic, url.path.rstrip("/"))
        if not (wanted.secrets or wanted.token or options.allow_unsigned or self._is_local):
            raise ConfigError(
                f"transport: http: {topic} would be received from anyone; set secrets or token, or"
                " allow_unsigned",
                code=TRANSPORT_OPTION,
            )
        if self._receiver is None:
            self._receiver = receiver_of(self._address)
            try:
                await self._receiver.join(self, options, url.scheme)
            except BaseException:
                self._receiver = None
                raise
            self._receiver.expected |= self._paths
        endpoint = self._receiver.endpoint(
            TopicEndpoint(wanted, options, self.settings.clock, store)
        )
        self._endpoints[topic] = endpoint
        return endpoint

    @property
    def _paths(self) -> set[str]:
        base = self.settings.url.path.rstrip("/")
        return {self.options.endpoint(topic, base).path or "" for topic in self._groups}

    @property
    def _is_local(self) -> bool:
        return self._address is not None and is_loopback(self._address[0])

    def _without_target(self, message: Message) -> PublishError | None:
        if any(subscription.refuse(message) for subscription in self._subscriptions):
            return None
        return self.publisher.drop(message)

    async def _leave(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            return
        for endpoint in self._endpoints.values():
            endpoint.leave(self._subscriptions)
            if not endpoint.subscriptions:
                receiver.remove(endpoint)
        receiver.expected -= self._paths
        self._endpoints.clear()
        self._subscriptions.clear()
        await receiver.leave(self)


def _address(settings: TransportSettings) -> Address:
    url = settings.url
    if not url.hosts:
        return None
    (host, port), *others = url.hosts
    if others or url.user is not None or url.password is not None:
        raise ConfigError(
            f"transport: http: the URL is the address to listen on, {url.scheme}://host:port/path;"
            " the token is an option",
            code=TRANSPORT_URL,
        )
    return host, port or _PORTS[url.scheme]
