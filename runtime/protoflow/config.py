"""The settings of a process: TOML < environment < arguments, all mistakes at once."""

from __future__ import annotations

import os
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, cast

from protoflow import topics
from protoflow.codecs.profiles import Profile
from protoflow.errors import ConfigError
from protoflow.options import convert
from protoflow.policy import merge, problems
from protoflow.secret import Secret
from protoflow.spec import DeadLetterPolicy, DeliveryPolicy, Encoding, RetryPolicy
from protoflow.topics import TopologyMode
from protoflow.url import TransportURL

_PREFIX = "PROTOFLOW_"
#: Variables with the prefix that are no settings.
_RESERVED = frozenset({"PROTOFLOW_CONFIG", "PROTOFLOW_REQUIRE_BROKERS"})


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
    from the TOML file that `file` or `PROTOFLOW_CONFIG` names, then built in. Durations are
    seconds, or text such as `30s`. `describe()` tells where each value came from.

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
    shutdown_timeout: float = _setting(30.0, "that handlers get at shutdown")
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
    environ: Mapping[str, str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        mistakes: list[str] = []
        environ = os.environ if self.environ is None else self.environ
        layers = {
            "argument": {
                setting.name: value
                for setting in _settings()
                if not isinstance(value := getattr(self, setting.name), _Default)
            },
            "environment": _from_environment(environ, mistakes),
            "file": _from_file(self.file or environ.get("PROTOFLOW_CONFIG"), mistakes),
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
                effective = _laid_over(effective, converted)
            object.__setattr__(self, name, effective)
        object.__setattr__(self, "environ", None)
        object.__setattr__(self, "_origins", origins)
        mistakes += _check(self)
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


def _from_file(path: str | os.PathLike[str] | None, mistakes: list[str]) -> dict[str, Any]:
    if not path:
        return {}
    import tomllib  # put off: many services have no file

    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        mistakes.append(f"file: {path}: {error.strerror}")
        return {}
    except tomllib.TOMLDecodeError as error:
        mistakes.append(f"file: {path}: not TOML: {error}")
        return {}
    return _known(content, f"file {path}", mistakes)


def _from_environment(environ: Mapping[str, str], mistakes: list[str]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, text in sorted(environ.items()):
        if not name.startswith(_PREFIX) or name in _RESERVED:
            continue
        first, *rest = name[len(_PREFIX) :].lower().split("__")
        value: Any = text
        if not rest and text.lstrip().startswith("{"):
            import json  # put off: many services have no tables in their environment

            try:
                value = json.loads(text)
            except ValueError:
                mistakes.append(f"{name}: not a JSON object")
                continue
        target = content
        for part in [first, *rest][:-1]:
            nested = target.setdefault(part, {})
            if not isinstance(nested, dict):
                mistakes.append(f"{name}: {part} is already given whole")
                break
            target = nested
        else:
            target[rest[-1] if rest else first] = value
    return _known(content, "environment", mistakes)


def _known(content: dict[str, Any], where: str, mistakes: list[str]) -> dict[str, Any]:
    names = {setting.name for setting in _settings()}
    for name in [name for name in content if name not in names]:
        shown = _PREFIX + name.upper() if where == "environment" else name
        mistakes.append(f"{shown} ({where}): no such setting; known are {', '.join(sorted(names))}")
        del content[name]
    return content


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
            mistakes.append(f"{where}.{name}: no such setting; known are {', '.join(hints)}")
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


def _check(config: Config) -> list[str]:
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
    for name in ("lease", "max_hold", "connect_timeout", "max_in_flight_bytes", "sync_threads"):
        if getattr(config, name) <= 0:
            mistakes.append(f"{name}: must be positive")
    for name in (
        "retry_in_place",
        "max_in_flight",
        "rebalance_drain",
        "shutdown_timeout",
        "max_deliveries_margin",
        "gc_threshold",
    ):
        if getattr(config, name) < 0:
            mistakes.append(f"{name}: must not be negative")
    ladder = config.retry_ladder
    if not ladder or ladder[0] <= 0 or list(ladder) != sorted(set(ladder)):
        mistakes.append("retry_ladder: must be positive and ascending")
    if config.on_lost_position not in ("stop", "earliest", "latest"):
        mistakes.append("on_lost_position: must be one of stop, earliest, latest")
    for name in ("http_port", "metrics_port"):
        if not 0 <= getattr(config, name) <= 65535:
            mistakes.append(f"{name}: must be 0 to 65535")
    if "*" in config.http_cors and not config.http_token:
        mistakes.append(
            "http_cors: '*' lets any page that a browser here shows purge dead letters; set "
            "http_token, or name the origins"
        )
    if topics.problem(config.exchange):
        mistakes.append("exchange: must be letters, digits, '.', '_' and '-'")
    return mistakes
