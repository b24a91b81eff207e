"""The settings of a process: TOML < environment < arguments, all mistakes at once."""

from __future__ import annotations

import os
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, cast

from protoflow.codecs.profiles import Profile
from protoflow.config.checks import mistakes_in
from protoflow.config.options import convert, did_you_mean
from protoflow.config.secret import Secret
from protoflow.config.sources import from_environment, from_file, known_only
from protoflow.config.url import TransportURL
from protoflow.contract.policy import merge
from protoflow.contract.spec import DeadLetterPolicy, DeliveryPolicy, Encoding, RetryPolicy
from protoflow.contract.topics import TopologyMode
from protoflow.errors import ConfigError


class _Default:
    """Stands for an argument that was not given, and knows the built-in value."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value)


def _setting(default: Any, help: str) -> Any:
    return field(default=_Default(default), metadata={"help": help})


@dataclass(frozen=True, kw_only=True, repr=False)
class Config:
    """All settings. What is not given as an argument is read from the environment
    (`PROTOFLOW_<NAME>`, nested ones with `__`: `PROTOFLOW_DEFAULTS__RETRY__MAX_ATTEMPTS`), then
    from the TOML file that `file` or `PROTOFLOW_CONFIG` names, then from `fallback`, then built
    in. Durations are seconds, or text such as `30s`. `describe()` tells where each value came
    from.

    Attributes:
        file: a TOML file; else the one that `PROTOFLOW_CONFIG` names.
        fallback: settings for where nobody says anything: what a program would do on its own.
            Unlike arguments they give way to the environment and the file.
        environ: the environment; that of the process unless given.

    Raises:
        ConfigError: with every mistake, unknown names included.
    """

    transport: str | TransportURL = _setting(
        TransportURL(scheme="memory"), "where the broker is, a URL"
    )
    transport_options: Mapping[str, Any] = _setting({}, "tunables of the transport")
    namespace: str = _setting("", "goes before every physical name, with a dot between")
    variables: Mapping[str, str] = _setting({}, "values of the {variables} in topics and groups")
    source: str = _setting("protoflow", "CloudEvents source where the contract names none")
    encoding: Encoding = _setting(Encoding.PROTOBUF, "payloads, where the contract says nothing")
    structured: bool = _setting(False, "publish CloudEvents in structured mode")
    profile: Profile = _setting(Profile.NATIVE, "native; watermill writes its headers, too")
    topology: TopologyMode = _setting(TopologyMode.CREATE, "create, verify or none")
    defaults: DeliveryPolicy = _setting(DeliveryPolicy(), "policy beneath the contract's")
    handlers: Mapping[str, DeliveryPolicy] = _setting({}, "policies by full method name")
    retry_in_place: float = _setting(5.0, "longest wait that is kept in this process")
    retry_ladder: tuple[float, ...] = _setting(
        (5.0, 30.0, 120.0, 600.0, 3600.0), "constant waits of brokers that keep retries in queues"
    )
    max_deliveries_margin: int = _setting(
        10, "hand-outs beyond max_attempts before a message is taken for a process killer"
    )
    max_in_flight: int = _setting(0, "unsettled messages a subscription; 0 is 16 x concurrency")
    max_in_flight_bytes: int = _setting(64 * 1024 * 1024, "the same in bytes")
    lease: float = _setting(30.0, "before an unrenewed message may go to another process")
    max_hold: float = _setting(3600.0, "for which a lease is renewed at most")
    stall_after: float | None = _setting(
        None, "without movement before waiting work turns readiness red; not set is the longer of "
        "60 s and three leases, 0 is never"
    )  # fmt: skip
    rebalance_drain: float = _setting(30.0, "that handlers get when their shard moves")
    shutdown_timeout: float = _setting(30.0, "for everything that a shutdown does")
    connect_timeout: float = _setting(30.0, "before an unreachable broker is an error at start")
    require_subscriber: bool = _setting(False, "publishing to nobody is an error")
    on_lost_position: str = _setting("stop", "stop, earliest or latest")
    exchange: str = _setting("protoflow", "common name of what a transport owns")
    client_name: str = _setting("protoflow", "how this process calls itself at the broker")
    sync_threads: int = _setting(32, "threads for handlers that are plain functions")
    handle_signals: bool = _setting(True, "run() stops on SIGTERM and SIGINT")
    gc_threshold: int = _setting(
        50_000, "new objects before Python looks for garbage within run(); 0 leaves Python's own"
    )
    type_names: Mapping[str, str] = _setting({}, "foreign type names -> proto full names")
    validate: bool = _setting(True, "check messages against the rules of their contract")
    trace_links: bool = _setting(False, "spans link to the sender's, in traces of their own")
    log_payloads: bool = _setting(False, "DEBUG records show messages, sensitive fields hidden")
    http_host: str = _setting("127.0.0.1", "where the HTTP pages bind")
    http_port: int = _setting(0, "of the HTTP pages; 0 is none")
    http_token: Secret | None = _setting(None, "bearer token of the HTTP pages")
    http_cors: tuple[str, ...] = _setting((), "origins whose browsers may read the HTTP pages")
    metrics_port: int = _setting(0, "of /metrics alone; 0 is http_port")
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
                    converted = _convert(name, hint, raw, mistakes)
                except ValueError as error:
                    mistakes.append(f"{name} ({origin}): {error}")
                    continue
                if name == "handlers":
                    converted = _renamed(converted, effective)
                effective = _laid_over(effective, converted)
            object.__setattr__(self, name, effective)
        object.__setattr__(self, "environ", None)
        object.__setattr__(self, "fallback", None)
        object.__setattr__(self, "_origins", origins)
        mistakes += mistakes_in(self)
        if mistakes:
            raise ConfigError(mistakes)

    @property
    def url(self) -> TransportURL:
        """The transport's URL in parts."""
        return cast("TransportURL", self.transport)  # so since __post_init__

    @property
    def stalled_after(self) -> float:
        """Seconds without movement after which work that waits is stalled; 0.0 is never."""
        return max(60.0, 3 * self.lease) if self.stall_after is None else self.stall_after

    def origin(self, name: str) -> str:
        """Where a setting comes from: argument, environment, file, fallback or built in."""
        origins: dict[str, str] = self.__dict__["_origins"]
        return origins[name]

    def policy_of(self, handler: str) -> DeliveryPolicy:
        """What `handlers` says of a handler. It may stand there by the form of its name that a
        variable of the environment can have, `shop_v1_orders_bill_order`."""
        found = self.handlers.get(handler)
        if found is None:
            form = _form(handler)
            found = next((policy for name, policy in self.handlers.items() if name == form), None)
        return found or DeliveryPolicy()

    def unknown_handlers(self, known: Iterable[str]) -> list[str]:
        """What `handlers` says of handlers that are none of these; a sentence for each."""
        names = set(known)
        forms = {_form(name) for name in names}
        there = ", ".join(sorted(names)) or "none"
        return [
            f"handlers.{name!r}: no such handler is registered{did_you_mean(name, names)}; there "
            f"are {there}"
            for name in self.handlers
            if name not in names and name not in forms
        ]

    def describe(self) -> dict[str, tuple[str, str]]:
        """Each setting's value, as text without secrets, and its origin."""
        origins: dict[str, str] = self.__dict__["_origins"]
        return {
            setting.name: (self._shown(setting.name), origins[setting.name])
            for setting in _settings()
        }

    def __repr__(self) -> str:
        told = (
            f"{name}={value}" for name, (value, origin) in self.describe().items()
            if origin != "built in"
        )  # fmt: skip
        return f"Config({', '.join(told)})"

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


def _form(handler: str) -> str:
    """The name of a handler as an environment variable can have it, in lower case."""
    return re.sub(r"[^a-z0-9]+", "_", handler.lower())


def _renamed(handlers: dict[str, Any], beneath: Mapping[str, Any]) -> dict[str, Any]:
    """Policies by the names that they already have in the layers beneath."""
    forms = {_form(name): name for name in beneath}
    return {forms.get(_form(name), name): policy for name, policy in handlers.items()}


def _convert(name: str, hint: Any, value: Any, mistakes: list[str]) -> Any:
    if name == "transport":
        try:
            return value if isinstance(value, TransportURL) else TransportURL.parse(str(value))
        except ConfigError as error:
            mistakes.extend(error.problems)
            return TransportURL(scheme="memory")
    if hint is DeliveryPolicy:
        return _policy(DeliveryPolicy, name, value, mistakes)
    if name == "handlers":
        return {
            handler: _policy(DeliveryPolicy, f"handlers.{handler!r}", policy, mistakes)
            for handler, policy in _mapping(value).items()
        }
    if typing.get_origin(hint) is Mapping or hint is Mapping:
        items = _mapping(value)
        return items if name == "transport_options" else {k: str(v) for k, v in items.items()}
    return convert(hint, value.total_seconds() if isinstance(value, timedelta) else value)


def _laid_over(base: Any, override: Any) -> Any:
    """Tables and policies are merged leaf by leaf, everything else is replaced."""
    if isinstance(base, DeliveryPolicy):
        return merge(base, override)
    if isinstance(base, Mapping):
        return {**base, **{k: _laid_over(base.get(k), v) for k, v in override.items()}}
    return override


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("must be a table")
    return dict(value)


def _policy(kind: Any, where: str, value: Any, mistakes: list[str]) -> Any:
    """A policy from a table; a policy as it is."""
    if isinstance(value, kind):
        return value
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, item in _mapping(value).items():
        hint = hints.get(name)
        if hint is None:
            hint_ = did_you_mean(name, hints) or f"; known are {', '.join(hints)}"
            mistakes.append(f"{where}.{name}: no such setting{hint_}")
        elif hint in (RetryPolicy, DeadLetterPolicy):
            try:
                values[name] = _policy(hint, f"{where}.{name}", item, mistakes)
            except ValueError as error:
                mistakes.append(f"{where}.{name}: {error}")
        else:
            try:
                item = item.total_seconds() if isinstance(item, timedelta) else item
                values[name] = convert(_inner(hint), item)
            except ValueError as error:
                mistakes.append(f"{where}.{name}: {error}")
    return kind(**values)


def _inner(hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint
