"""The settings of a process."""

from __future__ import annotations

import math
import os
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, cast

from protoflow.config.conversion import convert_setting, env_form, laid_over, renamed
from protoflow.config.http_mistakes import http_mistakes
from protoflow.config.options import did_you_mean
from protoflow.config.secret import Secret
from protoflow.config.sources import from_environment, from_file, known_only
from protoflow.config.url import TransportURL
from protoflow.contract import topics
from protoflow.contract.policy import problems
from protoflow.contract.spec import DeliveryPolicy, Encoding
from protoflow.contract.topics import TopologyMode
from protoflow.errors import ConfigError
from protoflow.v1.policy_fields import Limit
from protoflow.wire import Profile

_POSITIVE: Final = Limit(math.ulp(0.0), math.inf, "must be positive")
_NOT_NEGATIVE: Final = Limit(0, math.inf, "must not be negative")
_PORT: Final = Limit(0, 65535, "must be 0 to 65535")
#: A smaller limit would leave almost no space beside the tables.
_JOURNAL_SIZE: Final = Limit(1024 * 1024, math.inf, "must be at least 1048576")


class _Default:
    """Marks an argument that was not given, and holds the built-in value."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value)


def _setting(default: Any, help: str, limit: Limit | None = None) -> Any:
    """A field with its built-in value, its line in the documentation, and the numbers it takes."""
    return field(default=_Default(default), metadata={"help": help, "limit": limit})


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

    transport: str | TransportURL = _setting(TransportURL(scheme="memory"), "URL of the broker")
    transport_options: Mapping[str, Any] = _setting({}, "options of the transport")
    namespace: str = _setting("", "prefix of every physical name, joined with two dots")
    variables: Mapping[str, str] = _setting({}, "values of the {variables} in topics and groups")
    source: str = _setting("protoflow", "CloudEvents source, if the contract names none")
    encoding: Encoding = _setting(Encoding.PROTOBUF, "payload encoding, if the contract sets none")
    structured: bool = _setting(False, "publish CloudEvents in structured mode")
    profile: Profile = _setting(Profile.NATIVE, "native; watermill adds the headers of Watermill")
    topology: TopologyMode = _setting(
        TopologyMode.CREATE, "create, verify or none: whether a start creates or checks topics"
    )
    defaults: DeliveryPolicy = _setting(
        DeliveryPolicy(), "policy values that the contract does not set"
    )
    handlers: Mapping[str, DeliveryPolicy] = _setting(
        {}, "policies by handler, stronger than the contract"
    )
    retry_in_place: float = _setting(5.0, "longest wait for a retry in this process", _NOT_NEGATIVE)
    retry_ladder: tuple[float, ...] = _setting(
        (5.0, 30.0, 120.0, 600.0, 3600.0),
        "fixed waits of brokers that store retries in queues or topics",
    )
    max_deliveries_margin: int = _setting(
        10, "deliveries beyond max_attempts after which a message becomes a suspect", _NOT_NEGATIVE
    )
    max_in_flight: int = _setting(
        0, "unsettled messages of a subscription; 0: 16 x concurrency", _NOT_NEGATIVE
    )
    max_in_flight_bytes: int = _setting(64 * 1024 * 1024, "size of these messages", _POSITIVE)
    lease: float = _setting(30.0, "time after which another process may get a message", _POSITIVE)
    max_hold: float = _setting(3600.0, "longest time for which a lease is renewed", _POSITIVE)
    stall_after: float | None = _setting(
        None, "time without progress after which waiting messages turn readiness red; not set: the "
        "longer of 60 s and three leases; 0: never", _NOT_NEGATIVE,
    )  # fmt: skip
    rebalance_drain: float = _setting(
        30.0, "time for handlers to finish when their shard moves", _NOT_NEGATIVE
    )
    shutdown_timeout: float = _setting(30.0, "time for the whole shutdown", _NOT_NEGATIVE)
    connect_timeout: float = _setting(30.0, "time to reach the broker at start", _POSITIVE)
    require_subscriber: bool = _setting(False, "publishing to a topic without a group fails")
    on_lost_position: str = _setting("stop", "after a lost position: stop, earliest or latest")
    client_name: str = _setting("protoflow", "name of this process at the broker")
    sync_threads: int = _setting(32, "number of threads for synchronous handlers", _POSITIVE)
    handle_signals: bool = _setting(True, "run() stops on SIGTERM and SIGINT")
    gc_threshold: int = _setting(
        50_000,
        "new objects in run() before Python collects garbage; 0: the setting of Python",
        _NOT_NEGATIVE,
    )
    type_names: Mapping[str, str] = _setting({}, "full proto names by foreign type name")
    validate: bool = _setting(True, "check messages against the rules of their contract")
    trace_links: bool = _setting(False, "a run starts a trace that links to the sender's")
    log_payloads: bool = _setting(False, "DEBUG records show messages without sensitive fields")
    outbox: str | TransportURL | None = _setting(
        None, "URL of the PostgreSQL or SQLite database whose outbox a service relays"
    )
    journal: str = _setting("", "path of the journal, a SQLite file; empty: none")
    journal_successes: bool = _setting(False, "the journal also records publishes and successes")
    journal_max_bytes: int = _setting(
        64 * 1024 * 1024, "largest size of the journal", _JOURNAL_SIZE
    )
    http_host: str = _setting("127.0.0.1", "address of the HTTP pages")
    http_port: int = _setting(0, "port of the HTTP pages; 0: no pages", _PORT)
    http_socket: str = _setting("", "Unix socket of the HTTP pages, for a proxy on this machine")
    http_token: Secret | None = _setting(None, "bearer token that may read and operate")
    http_read_token: Secret | None = _setting(None, "bearer token that may only read")
    http_payloads: bool = _setting(
        False, "pages may show payloads of dead letters, without sensitive fields"
    )
    http_publish: bool = _setting(False, "pages may publish messages, for whoever may operate")
    http_processes: bool = _setting(
        False, "pages show other processes of the namespace, by heartbeats over the broker"
    )
    http_proxies: tuple[str, ...] = _setting(
        (), "addresses or networks of proxies whose X-Forwarded-For names the client"
    )
    http_cors: tuple[str, ...] = _setting((), "origins whose pages may read the HTTP pages")
    metrics_port: int = _setting(0, "port for only /metrics; 0: http_port", _PORT)
    file: str | os.PathLike[str] | None = None
    fallback: Mapping[str, Any] | None = field(default=None, repr=False)
    environ: Mapping[str, str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        mistakes: list[str] = []
        environ = os.environ if self.environ is None else self.environ
        names = [setting.name for setting in _settings()]
        layers = {
            "argument": {
                setting.name: value
                for setting in _settings()
                if not isinstance(value := getattr(self, setting.name), _Default)
            },
            "environment": from_environment(environ, names, mistakes),
            "file": from_file(self.file or environ.get("PROTOFLOW_CONFIG"), names, mistakes),
            "fallback": known_only(dict(self.fallback or {}), "fallback", names, mistakes),
        }
        origins: dict[str, str] = {}
        for setting in _settings():
            name, hint = setting.name, _hints()[setting.name]
            given = [(origin, layer[name]) for origin, layer in layers.items() if name in layer]
            effective: Any = setting.default.value
            origins[name] = given[0][0] if given else "built in"
            for origin, raw in reversed(given):
                try:
                    converted = convert_setting(name, hint, raw, mistakes)
                except ValueError as error:
                    mistakes.append(f"{name} ({origin}): {error}")
                    continue
                if name == "handlers":
                    converted = renamed(converted, effective)
                effective = laid_over(effective, converted)
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
    def outbox_url(self) -> TransportURL | None:
        """The parts of the outbox URL; None if there is no outbox."""
        return cast("TransportURL | None", self.outbox)  # converted in __post_init__

    @property
    def stalled_after(self) -> float:
        """Seconds without progress after which waiting messages count as stalled; 0.0: never."""
        return max(60.0, 3 * self.lease) if self.stall_after is None else self.stall_after

    def origin(self, name: str) -> str:
        """Returns the source of a setting: argument, environment, file, fallback or built in."""
        origins: dict[str, str] = self.__dict__["_origins"]
        return origins[name]

    def policy_of(self, handler: str) -> DeliveryPolicy:
        """Returns the policy that `handlers` sets for a handler.

        The key in `handlers` is the name of the handler, or its form in environment variables,
        `shop_v1_orders_bill_order`.
        """
        found = self.handlers.get(handler)
        if found is None:
            form = env_form(handler)
            found = next((policy for name, policy in self.handlers.items() if name == form), None)
        return found or DeliveryPolicy()

    def unknown_handlers(self, known: Iterable[str]) -> list[str]:
        """Returns an error text for each name in `handlers` that is not a known handler."""
        names = set(known)
        forms = {env_form(name) for name in names}
        there = ", ".join(sorted(names)) or "none"
        return [
            f"handlers.{name!r}: no such handler is registered{did_you_mean(name, names)}; there "
            f"are {there}"
            for name in self.handlers
            if name not in names and name not in forms
        ]

    def describe(self) -> dict[str, tuple[str, str]]:
        """Returns the value of each setting, as text without secrets, and its source."""
        origins: dict[str, str] = self.__dict__["_origins"]
        return {
            setting.name: (self._shown(setting.name), origins[setting.name])
            for setting in _settings()
        }

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
    return [item for item in fields(Config) if isinstance(item.default, _Default)]


_cached_hints: dict[str, Any] = {}


def _hints() -> dict[str, Any]:
    if not _cached_hints:
        _cached_hints.update(typing.get_type_hints(Config))
    return _cached_hints


def _mistakes_in(config: Config) -> list[str]:
    """Returns every mistake that concerns several settings, one sentence each."""
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
    mistakes += _numbers_out_of_range(config)
    for name in ("source", "client_name"):
        if not getattr(config, name).isprintable():
            mistakes.append(f"{name}: has control characters")
    ladder = config.retry_ladder
    if not ladder or ladder[0] <= 0 or list(ladder) != sorted(set(ladder)):
        mistakes.append("retry_ladder: must be positive and ascending")
    if config.on_lost_position not in ("stop", "earliest", "latest"):
        mistakes.append("on_lost_position: must be one of stop, earliest, latest")
    return mistakes + http_mistakes(
        config.http_token, config.http_read_token, config.http_cors, config.http_proxies
    )


def _numbers_out_of_range(config: Config) -> list[str]:
    limits = {setting.name: setting.metadata["limit"] for setting in _settings()}
    return [
        f"{name}: {limit.fix}"
        for name, limit in limits.items()
        if limit and (value := getattr(config, name)) is not None and not limit.allows(value)
    ]
