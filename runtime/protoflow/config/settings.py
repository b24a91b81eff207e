"""The settings of a process."""

from __future__ import annotations

import os
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, cast

from protoflow.config import conversion, named_transports, setting_fields
from protoflow.config.named_transports import DEFAULT, NamedTransport, RouteSettings
from protoflow.config.secret import Secret
from protoflow.config.setting_fields import NOT_NEGATIVE, PORT, POSITIVE, Default, setting
from protoflow.config.sources import from_environment, from_file, known_only
from protoflow.config.url import TransportURL
from protoflow.contract import topics
from protoflow.contract.policy import problems
from protoflow.contract.spec import DeliveryPolicy, Encoding
from protoflow.contract.topics import TopologyMode
from protoflow.errors import ConfigError
from protoflow.wire import Profile


@dataclass(frozen=True, kw_only=True, repr=False)
class Config:
    """The settings of a process, with the origin of each value.

    The sources of a value, strongest first, are the argument, the environment (`PROTOFLOW_<NAME>`,
    with `__` before nested names: `PROTOFLOW_DEFAULTS__RETRY__MAX_ATTEMPTS`), the TOML file,
    `fallback` and the built-in default. Durations are seconds, or text such as `30s`.

    Attributes:
        file: the TOML file; by default the file that `PROTOFLOW_CONFIG` names.
        fallback: defaults of a program, which the environment and the file override.
        environ: the environment; by default that of the process.

    Raises:
        ConfigError: it lists all mistakes, including unknown names.
    """

    transport: str | TransportURL = setting(TransportURL(scheme="memory"), "URL of the broker")
    transport_options: Mapping[str, Any] = setting({}, "options of the transport")
    transports: named_transports.TransportTable = setting(
        {}, "further transports by name: url, and their options"
    )
    topics: named_transports.RouteTable = setting(
        {}, "by topic of the contract: transport, source, and options of its schema_registry"
    )
    groups: named_transports.RouteTable = setting({}, "by group: transport, where it consumes")
    namespace: str = setting("", "prefix of every physical name, joined with two dots")
    variables: Mapping[str, str] = setting({}, "values of the {variables} in topics and groups")
    source: str = setting("protoflow", "CloudEvents source, if the contract names none")
    encoding: Encoding = setting(Encoding.PROTOBUF, "payload encoding, if the contract sets none")
    structured: bool = setting(False, "publish CloudEvents in structured mode")
    profile: Profile = setting(Profile.NATIVE, "native; watermill adds the headers of Watermill")
    topology: TopologyMode = setting(
        TopologyMode.CREATE, "create, verify or none: whether a start creates or checks topics"
    )
    defaults: DeliveryPolicy = setting(
        DeliveryPolicy(), "policy values that the contract does not set"
    )
    handlers: Mapping[str, DeliveryPolicy] = setting(
        {}, "policies by handler, stronger than the contract; transport: where it consumes"
    )
    retry_in_place: float = setting(5.0, "longest wait for a retry in this process", NOT_NEGATIVE)
    retry_ladder: tuple[float, ...] = setting(
        (5.0, 30.0, 120.0, 600.0, 3600.0),
        "fixed waits of brokers that store retries in queues or topics",
    )
    max_deliveries_margin: int = setting(
        10, "deliveries beyond max_attempts after which a message becomes a suspect", NOT_NEGATIVE
    )
    max_in_flight: int = setting(
        0, "unsettled messages of a subscription; 0: 16 x concurrency", NOT_NEGATIVE
    )
    max_in_flight_bytes: int = setting(64 * 1024 * 1024, "size of these messages", POSITIVE)
    lease: float = setting(30.0, "time after which another process may get a message", POSITIVE)
    max_hold: float = setting(3600.0, "longest time for which a lease is renewed", POSITIVE)
    stall_after: float | None = setting(
        None, "time without progress after which waiting messages turn readiness red; not set: the "
        "longer of 60 s and three leases; 0: never", NOT_NEGATIVE,
    )  # fmt: skip
    rebalance_drain: float = setting(
        30.0, "time for handlers to finish when their shard moves", NOT_NEGATIVE
    )
    shutdown_timeout: float = setting(30.0, "time for the whole shutdown", NOT_NEGATIVE)
    connect_timeout: float = setting(30.0, "time to reach the broker at start", POSITIVE)
    require_subscriber: bool = setting(False, "publishing to a topic without a group fails")
    on_lost_position: str = setting("stop", "after a lost position: stop, earliest or latest")
    client_name: str = setting("protoflow", "name of this process at the broker")
    sync_threads: int = setting(32, "number of threads for synchronous handlers", POSITIVE)
    handle_signals: bool = setting(True, "run() stops on SIGTERM and SIGINT")
    gc_threshold: int = setting(
        50_000,
        "new objects in run() before Python collects garbage; 0: the setting of Python",
        NOT_NEGATIVE,
    )
    type_names: Mapping[str, str] = setting({}, "full proto names by foreign type name")
    validate: bool = setting(True, "check messages against the rules of their contract")
    trace_links: bool = setting(False, "a run starts a trace that links to the sender's")
    log_payloads: bool = setting(False, "DEBUG records show messages without sensitive fields")
    outbox: str | TransportURL | None = setting(
        None, "URL of the PostgreSQL or SQLite database whose outbox a service relays"
    )
    schema_registry: named_transports.RegistryTable | None = setting(None, "URL, or a table")
    journal: str = setting("", "path of the journal, a SQLite file; empty: none")
    journal_successes: bool = setting(False, "the journal also records publishes and successes")
    journal_max_bytes: int = setting(
        64 * 1024 * 1024, "largest size of the journal", setting_fields.JOURNAL_SIZE
    )
    http_host: str = setting("127.0.0.1", "address of the HTTP pages")
    http_port: int = setting(0, "port of the HTTP pages; 0: no pages", PORT)
    http_socket: str = setting("", "Unix socket of the HTTP pages, for a proxy on this machine")
    http_token: Secret | None = setting(None, "bearer token that may read and operate")
    http_read_token: Secret | None = setting(None, "bearer token that may only read")
    http_payloads: bool = setting(
        False, "pages may show payloads of dead letters, without sensitive fields"
    )
    http_publish: bool = setting(False, "pages may publish messages, for whoever may operate")
    http_processes: bool = setting(
        False, "pages show other processes of the namespace, by heartbeats over the broker"
    )
    http_proxies: tuple[str, ...] = setting(
        (), "addresses or networks of proxies whose X-Forwarded-For names the client"
    )
    http_cors: tuple[str, ...] = setting((), "origins whose pages may read the HTTP pages")
    metrics_port: int = setting(0, "port for only /metrics; 0: http_port", PORT)
    file: str | os.PathLike[str] | None = None
    fallback: Mapping[str, Any] | None = field(default=None, repr=False)
    environ: Mapping[str, str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        mistakes: list[str] = []
        layers = _layers(self, mistakes)
        origins: dict[str, str] = {}
        by_handler: dict[str, str] = {}
        for one in _settings():
            name, hint = one.name, _hints()[one.name]
            given = [(origin, layer[name]) for origin, layer in layers.items() if name in layer]
            effective: Any = one.default.value
            origins[name] = given[0][0] if given else "built in"
            for origin, raw in reversed(given):
                if name == "handlers":
                    raw = conversion.without_transports(raw, by_handler)
                try:
                    converted = conversion.convert_setting(name, hint, raw, mistakes)
                except ValueError as error:
                    mistakes.append(f"{name} ({origin}): {error}")
                    continue
                if name in conversion.BY_NAME:
                    converted = conversion.renamed(converted, effective)
                effective = conversion.laid_over(effective, converted)
            effective = conversion.completed(name, effective, by_handler, mistakes)
            object.__setattr__(self, name, effective)
        object.__setattr__(self, "environ", None)
        object.__setattr__(self, "fallback", None)
        object.__setattr__(self, "_origins", origins)
        mistakes += _mistakes_in(self)
        if mistakes:
            raise ConfigError(mistakes)

    @property
    def url(self) -> TransportURL:
        """The parts of the transport URL."""
        return cast("TransportURL", self.transport)  # converted in __post_init__

    @property
    def urls(self) -> tuple[TransportURL, ...]:
        """The URLs of all transports."""
        return tuple(self.transport_named(name).url for name in (DEFAULT, *self.transports))

    @property
    def outbox_url(self) -> TransportURL | None:
        """The parts of the outbox URL; None if there is no outbox."""
        return cast("TransportURL | None", self.outbox)  # converted in __post_init__

    @property
    def registry(self) -> NamedTransport | None:
        """The schema registry; None if there is none."""
        return cast("NamedTransport | None", self.schema_registry)  # converted in __post_init__

    @property
    def stalled_after(self) -> float:
        """Seconds without progress after which waiting messages count as stalled; 0.0: never."""
        return max(60.0, 3 * self.lease) if self.stall_after is None else self.stall_after

    def origin(self, name: str) -> str:
        """Returns the source of a setting: argument, environment, file, fallback or built in."""
        origins: dict[str, str] = self.__dict__["_origins"]
        return origins[name]

    def transport_named(self, name: str) -> NamedTransport:
        """Returns a transport by name; `default` is the setting `transport`."""
        if name == DEFAULT:
            return NamedTransport(url=self.url, options=self.transport_options)
        return cast("NamedTransport", self.transports[name])  # converted in __post_init__

    @property
    def routes(self) -> Mapping[str, Mapping[str, RouteSettings]]:
        """The settings `topics` and `groups`, by these names."""
        found = {"topics": self.topics, "groups": self.groups}
        return cast("Mapping[str, Mapping[str, RouteSettings]]", found)

    @property
    def handler_transports(self) -> Mapping[str, str]:
        """The names of the transports that `handlers` sets, by handler."""
        return cast("named_transports.HandlerPolicies", self.handlers).transports

    def policy_of(self, handler: str) -> DeliveryPolicy:
        """Returns the policy that `handlers` sets for a handler.

        The key in `handlers` is the name of the handler, or its form in environment variables,
        `shop_v1_orders_bill_order`.
        """
        return conversion.named(self.handlers, handler) or DeliveryPolicy()

    def unknown_handlers(self, known: Iterable[str]) -> list[str]:
        """Returns an error text for each name in `handlers` that is not a known handler."""
        return conversion.unknown("handlers", self.handlers, known, "handler is registered")

    def describe(self) -> dict[str, tuple[str, str]]:
        """Returns the value of each setting, as text without secrets, and its source."""
        origins: dict[str, str] = self.__dict__["_origins"]
        return {one.name: (self._shown(one.name), origins[one.name]) for one in _settings()}

    def __repr__(self) -> str:
        settings = (
            f"{name}={value}" for name, (value, origin) in self.describe().items()
            if origin != "built in"
        )  # fmt: skip
        return f"Config({', '.join(settings)})"

    def _shown(self, name: str) -> str:
        value = getattr(self, name)
        if name == "transport_options":
            return "{" + ", ".join(f"{key}: ***" for key in value) + "}"
        return str(value) if isinstance(value, str | TransportURL) else repr(value)


def _settings() -> list[Any]:
    return [item for item in fields(Config) if isinstance(item.default, Default)]


def _layers(config: Config, mistakes: list[str]) -> dict[str, dict[str, Any]]:
    """Returns the settings that each source gives, strongest first."""
    environ = os.environ if config.environ is None else config.environ
    names = [one.name for one in _settings()]
    arguments = {name: getattr(config, name) for name in names}
    return {
        "argument": {k: v for k, v in arguments.items() if not isinstance(v, Default)},
        "environment": from_environment(environ, names, mistakes),
        "file": from_file(config.file or environ.get("PROTOFLOW_CONFIG"), names, mistakes),
        "fallback": known_only(dict(config.fallback or {}), "fallback", names, mistakes),
    }


_cached_hints: dict[str, Any] = {}


def _hints() -> dict[str, Any]:
    if not _cached_hints:
        _cached_hints.update(typing.get_type_hints(Config))
    return _cached_hints


def _mistakes_in(config: Config) -> list[str]:
    """Returns every mistake that concerns several settings, one sentence each."""
    # imported here, because most modules only name the class
    from protoflow.config.http_mistakes import http_mistakes

    mistakes: list[str] = []
    if config.namespace and (wrong := topics.problem(config.namespace)):
        mistakes.append(f"namespace: {wrong}")
    mistakes += [
        f"variables.{name}: {value!r} is not letters, digits, '_' and '-'"
        for name, value in config.variables.items()
        if not topics.VALUE.fullmatch(value)
    ]
    policies = [("defaults", config.defaults)]
    policies += [(f"handlers.{name!r}", policy) for name, policy in config.handlers.items()]
    for where, policy in policies:
        mistakes += [f"{where}: {text}" for text in problems(policy)]
    mistakes += setting_fields.out_of_range(config)
    for name in ("source", "client_name"):
        if not getattr(config, name).isprintable():
            mistakes.append(f"{name}: has control characters")
    ladder = config.retry_ladder
    if not ladder or ladder[0] <= 0 or list(ladder) != sorted(set(ladder)):
        mistakes.append("retry_ladder: must be positive and ascending")
    if config.on_lost_position not in ("stop", "earliest", "latest"):
        mistakes.append("on_lost_position: must be one of stop, earliest, latest")
    mistakes += named_transports.mistakes_in(
        {name: config.transport_named(name) for name in (DEFAULT, *config.transports)},
        config.routes, config.handler_transports, config.registry,
    )  # fmt: skip
    return mistakes + http_mistakes(
        config.http_token, config.http_read_token, config.http_cors, config.http_proxies
    )
