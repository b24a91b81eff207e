"""The service: its public methods. Each one calls a component."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from protoflow.config.settings import Config
from protoflow.contract.spec import DeliveryPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta
    from types import TracebackType

    from google.protobuf.message import Message as ProtoMessage

    from protoflow.clock import Clock
    from protoflow.contract.spec import ProtoClass, PublicationSpec
    from protoflow.events import CloudEvent
    from protoflow.handler import Handler, HandlerSync
    from protoflow.journal import Journal
    from protoflow.message import Message
    from protoflow.middleware import Dependencies
    from protoflow.observability.health import Health
    from protoflow.observability.report import HandlerInfo, Reporter
    from protoflow.outbox import OutboxStore
    from protoflow.output import AnyOutput
    from protoflow.pipeline import Chain, Middleware
    from protoflow.publishing.event_publisher import EventPublisher, PublishOptions
    from protoflow.registrations.plain_handlers import (
        EventHandler,
        JSONHandler,
        MessageHandler,
        ProtoHandler,
    )
    from protoflow.scheduling.scheduler import Scheduler
    from protoflow.service.single_handler import SingleHandler
    from protoflow.stats.handlers import Counters, HandlerStats
    from protoflow.transport.interface import Capabilities, Transport
    from protoflow.transport.kit.dead_letters import DeadLetters
    from protoflow.web.asgi import ASGIApplication

_NOTHING = DeliveryPolicy()


class Service:
    """Runs handlers. It is also a `Publisher` that publishes immediately.

    Args:
        config: the settings; by default they are read from the environment.
        lifespan: an async context manager, open from before the first message until after the last.
        middleware: a `Chain`, or middlewares that are placed next to the handlers.
        clock: time and randomness; for tests.
        transport: replaces the transport that the settings name, or several by name; for tests.
        dependencies: optional collaborators of the default chain; see `Dependencies`.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        lifespan: Callable[[Service], AbstractAsyncContextManager[object]] | None = None,
        middleware: Chain | Sequence[Middleware] | None = None,
        clock: Clock | None = None,
        transport: Transport | Mapping[str, Transport] | None = None,
        **dependencies: Unpack[Dependencies],
    ) -> None:
        # Imported here, because a program may only name this class.
        from protoflow.service.lifetime import Lifetime
        from protoflow.service.startup import Components

        self.config = config or Config()
        self._components = Components(self.config, middleware, clock, transport, dependencies)
        self._lifespan = None if lifespan is None else lambda: lifespan(self)
        self._lifetime = Lifetime(self._components, self._lifespan)
        self._registry = self._components.registry
        self._publisher = self._components.publisher
        self._events = self._components.events
        self._inspection = self._components.inspection

    @property
    def registered(self) -> tuple[str, ...]:
        """The full names of the registered handlers."""
        return tuple(one.name for one in self._registry.registrations)

    # Registration, before the service starts.

    def register(self, *handlers: Handler | HandlerSync) -> None:
        """Registers instances of generated handler classes.

        Raises:
            RegistrationError: lists every mistake: the object is not a generated handler, a method
                does not match its rpc, a handler is registered twice, or the service has started.
        """
        self._registry.register(*handlers)

    def register_message_handler(
        self, name: str, topic: str, handler: MessageHandler, *, group: str | None = None,
        delivery: DeliveryPolicy = _NOTHING,
    ) -> None:  # fmt: skip
        """Registers a handler of raw messages; the messages it returns are published unchanged.

        Args:
            name: unique in the service; also the default group.
            topic: the consumed topic.
            handler: `async def handler(message, context)`.
            group: the consumer group.
            delivery: the policy.
        """
        self._registry.register_message_handler(
            name, topic, handler, group=group, delivery=delivery
        )

    def register_json_handler(
        self, name: str, topic: str, handler: JSONHandler, *, type: Any = dict,
        group: str | None = None, publish_topic: str | None = None,
        delivery: DeliveryPolicy = _NOTHING,
    ) -> None:  # fmt: skip
        """Registers a handler of JSON; its results are published to `publish_topic` as JSON.

        Args:
            name, topic, group, delivery: see `register_message_handler`.
            handler: `async def handler(value, context)`.
            type: the type of the JSON value: a dataclass, TypedDict, msgspec or pydantic type.
            publish_topic: the topic of the results.
        """
        self._registry.register_json_handler(
            name, topic, handler, type=type, group=group, publish_topic=publish_topic,
            delivery=delivery,
        )  # fmt: skip

    def register_proto_handler(
        self, name: str, topic: str, message_class: ProtoClass, handler: ProtoHandler, *,
        output_class: ProtoClass | None = None, publish_topic: str | None = None,
        group: str | None = None, delivery: DeliveryPolicy = _NOTHING,
    ) -> None:  # fmt: skip
        """Registers a handler of protobuf messages that have no generated handler class.

        Args:
            name, topic, group, delivery: see `register_message_handler`.
            message_class: the class of the input, from a `_pb2` module.
            handler: `async def handler(message, context)`.
            output_class: the class of its results.
            publish_topic: the topic of the results.
        """
        self._registry.register_proto_handler(
            name, topic, message_class, handler, output_class=output_class,
            publish_topic=publish_topic, group=group, delivery=delivery,
        )  # fmt: skip

    def register_cloudevents_handler(
        self, name: str, event_type: str, handler: EventHandler, *, topic: str | None = None,
        group: str | None = None, max_attempts: int | None = None,
    ) -> None:  # fmt: skip
        """Registers a handler of CloudEvents of one type.

        Args:
            name: unique in the service; also the default group.
            event_type: the CloudEvents type; also the default topic.
            handler: `async def handler(event)` with an `EventContext`.
            topic: the consumed topic.
            group: the consumer group.
            max_attempts: overrides the policy's.
        """
        self._registry.register_cloudevents_handler(
            name, event_type, handler, topic=topic, group=group, max_attempts=max_attempts
        )

    def consume_events(self, event_type: str, handler: EventHandler) -> None:
        """Registers a handler of CloudEvents under the name of its function."""
        self._registry.consume_events(event_type, handler)

    def register_proto_message(self, message_class: ProtoClass) -> None:
        """Compiles the rules of a type at start, for a type that this service only publishes."""
        self._registry.register_proto_message(message_class)

    def register_middleware(
        self, name: str, middleware: Middleware, *, before: str | None = None,
        after: str | None = None,
    ) -> None:  # fmt: skip
        """Adds a middleware: outside of `before`, inside of `after`, or by default next to the
        handlers.

        Raises:
            ConfigError: the name is taken, or `before` or `after` names no middleware.
            RegistrationError: the service has started.
        """
        self._registry.register_middleware(name, middleware, before=before, after=after)

    def register_http_handler(
        self, path: str, handler: Callable[[Any], Awaitable[Any]], *, method: str = "GET"
    ) -> None:
        """Adds a page of the application to the HTTP pages, under the same token.

        Args:
            path: a path of aiohttp, such as `/orders/{id}`.
            handler: takes an `aiohttp.web.Request`, returns a response.
            method: the HTTP method.

        Raises:
            RegistrationError: the path is taken, or the server runs already.
        """
        self._inspection.register_http_handler(path, handler, method=method)

    def relay_outbox(self, store: OutboxStore) -> None:
        """Publishes the messages of a `RelayedOutbox` while the service runs; `Service(outbox=...)`
        calls it.

        Raises:
            RegistrationError: the service already relays one.
        """
        self._inspection.relay_outbox(store)

    # Immediate publishing.

    def bind(self, connection: object) -> EventPublisher:
        """Returns a publisher for the open transaction of a database connection.

        Messages are written to the database's own log or to its outbox, and exist if it commits."""
        return self._components.bind(connection)

    async def publish_outputs(
        self, publication: PublicationSpec, outputs: Sequence[AnyOutput]
    ) -> list[str]:
        """Publishes outputs; returns their ids. See `Publisher`."""
        return await self._publisher.outputs(publication, outputs)

    async def publish(self, *messages: Message) -> None:
        """Publishes raw messages.

        Raises:
            PublishError: the broker did not store a message.
            InvalidMessageError: metadata has names of broker commands, or values that are not text.
        """
        await self._events.publish(*messages)

    async def publish_proto(
        self, topic: str, message: ProtoMessage, metadata: Mapping[str, str] | None = None
    ) -> str:
        """Publishes a protobuf message to a topic; returns its id. Raises PublishError."""
        return await self._events.publish_proto(topic, message, metadata)

    async def publish_event(self, event: CloudEvent, *, topic: str | None = None) -> str:
        """Publishes a CloudEvent to `topic`, by default its type; returns its id."""
        return await self._events.publish_event(event, topic=topic)

    async def publish_event_after(
        self, event: CloudEvent, delay: timedelta, *, topic: str | None = None
    ) -> str:
        """Like `publish_event`, after a delay. Raises CapabilityError if that is not supported."""
        return await self._events.publish_event_after(event, delay, topic=topic)

    async def publish_data(
        self, type: str, source: str, data: Any, **options: Unpack[PublishOptions]
    ) -> str:
        """Publishes data as a CloudEvent to the topic with the name of its type; returns its id."""
        return await self._events.publish_data(type, source, data, **options)

    async def publish_data_after(
        self, type: str, source: str, data: Any, delay: timedelta,
        **options: Unpack[PublishOptions],
    ) -> str:  # fmt: skip
        """Like `publish_data`, after a delay. Raises CapabilityError if that is not supported."""
        return await self._events.publish_data_after(type, source, data, delay, **options)

    # Lifetime.

    async def run(self) -> None:
        """Runs until SIGTERM, SIGINT or `request_stop`, then drains.

        A second signal cancels the handlers, a third ends the process at once. While it runs, the
        service handles signals (`handle_signals`) and sets the threshold of garbage collection
        (`gc_threshold`). `async with service` changes neither.

        Raises:
            ProtoflowError: the service cannot start.
            BaseException: the error that ended a part of the runtime.
        """
        await self._lifetime.run()

    def request_stop(self) -> None:
        """Makes `run` drain and return."""
        self._lifetime.request_stop()

    async def start(self) -> None:
        """Connects, creates or verifies the topology, and starts consuming; `stop` ends it.

        Raises:
            ConfigError, RegistrationError, CapabilityError: they list all mistakes.
            TransportError: the broker cannot be reached, or refuses the connection.
        """
        await self._lifetime.start()

    async def stop(self) -> None:
        """Drains and closes within `shutdown_timeout`; unsettled messages are delivered again."""
        await self._lifetime.stop()

    async def __aenter__(self) -> Service:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        await self.stop()

    def single_handler(self, transport: Transport) -> SingleHandler:
        """Returns the runner of one handler on another transport; for the runtime."""
        from protoflow.service.single_handler import SingleHandler

        return SingleHandler(self._components, self._lifespan, transport)

    def pause(self, name: str) -> None:
        """Pauses a subscription until `resume`; running handlers continue.

        Args:
            name: the full name of a handler, or `<topic>/<group>`.
        """
        self._components.running.named(name).pause()
        self._components.journaling.record_action("pause", name)

    def resume(self, name: str) -> None:
        """Ends `pause`."""
        self._components.running.named(name).resume()
        self._components.journaling.record_action("resume", name)

    def drain(self, name: str) -> None:
        """Begins to drain a subscription, named as for `pause`: running handlers finish, other
        messages are given back. It consumes again when the process is restarted."""
        self._components.running.named(name).drain(self.config.shutdown_timeout)
        self._components.journaling.record_action("drain", name)

    # State.

    @property
    def middleware(self) -> Chain:
        """The middlewares, outermost first."""
        return self._registry.chain

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the transport; of the default one if there are several."""
        return self._components.transport.capabilities

    @property
    def transport(self) -> Transport:
        """The transport, for its optional interfaces (dead letters, lag, transactions)."""
        return self._components.transport

    @property
    def subscriptions(self) -> Sequence[Scheduler]:
        """The running subscriptions."""
        return self._inspection.subscriptions

    @property
    def busy_threads(self) -> int:
        """The number of handlers that run in threads."""
        return self._components.threads.busy

    @property
    def counters(self) -> Counters:
        """The counters of handlers, dead letters and sent messages."""
        return self._components.counters

    @property
    def reporter(self) -> Reporter:
        """The reporter, which reads the counters and queries the broker; for metrics."""
        return self._inspection.reporter

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead letters of the handlers: list, show, replay or purge; each action is counted."""
        return self._inspection.dead_letters

    @property
    def journal(self) -> Journal | None:
        """The journal, for operator actions; None if the settings name none."""
        return self._components.journaling.journal

    @property
    def outbox_problem(self) -> str | None:
        """The problem of the outbox relay; None without a problem or an outbox."""
        return self._inspection.outbox_problem

    def health(self) -> Health:
        """Returns whether the process is alive and ready, and its problems."""
        return self._inspection.health()

    def stats(self) -> dict[str, HandlerStats]:
        """Returns the counters of every handler, by its full name."""
        return dict(self.counters.handlers)

    def handlers(self) -> list[HandlerInfo]:
        """Returns every handler and its state; the lag is from the last `reporter.refresh()`."""
        return self.reporter.handlers()

    async def start_web_ui(self, port: int | None = None) -> int:
        """Serves the HTTP pages; with `http_port` set, the service calls it at start.

        Args:
            port: replaces the configured port; with 0 the operating system chooses one.

        Returns:
            The port.

        Raises:
            ConfigError: the port is taken.
            MissingExtraError: aiohttp is not installed.
        """
        return await self._inspection.start_web_ui(port)

    def asgi_app(self) -> ASGIApplication:
        """Returns the HTTP pages as an ASGI application, which can be mounted in FastAPI or
        Starlette. Without `http_token` it only answers requests from this machine.

        Raises:
            RegistrationError: a handler of `register_http_handler` needs aiohttp.
        """
        return self._inspection.asgi_app()

    def asgi_lifespan(self, app: ASGIApplication) -> ASGIApplication:
        """Returns an ASGI application with which the service starts and stops: it starts after
        `app` has started, and drains before `app` stops."""
        from protoflow.service.asgi_lifespan import AsgiLifespan

        return AsgiLifespan(app, self.start, self.stop)

    async def stop_web_ui(self) -> None:
        """Closes the ports; `stop` calls it."""
        await self._inspection.stop_web_ui()
