"""KEDA's objects: https://keda.sh/docs/latest/reference/scaledobject-spec/."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from protoflow.cli.export.kubernetes import Manifest, Workload
from protoflow.clock import Clock
from protoflow.config import Config
from protoflow.config.named_transports import DEFAULT
from protoflow.connection import transport_settings
from protoflow.dataclass_record import dataclass_record
from protoflow.error_codes import EXPORT
from protoflow.errors import ConfigError
from protoflow.transport.interface import SubscriptionSettings, TransportSettings
from protoflow.transport.scaling import ScalerTrigger
from protoflow.transports.built_in import BY_SCHEME

_API = "keda.sh/v1alpha1"
#: Processes are stopped only after fewer were enough for this long, in seconds, because each start
#: and each stop moves work between the others.
_STABLE = 300
_SCALING = {"scaleDown": {"stabilizationWindowSeconds": _STABLE}}

Triggers = Callable[[TransportSettings, SubscriptionSettings, int], Iterable[ScalerTrigger]]


@dataclass_record
class Scale:
    """How far to scale.

    Attributes:
        least: the lowest number of processes.
        most: the highest number of processes.
        lag: the number of waiting messages for which there is one process.
        prometheus: the URL of a Prometheus server, which then gives the lag; empty: the broker.
    """

    least: int
    most: int
    lag: int
    prometheus: str = ""


def manifests(
    workload: Workload, config: Config, subscriptions: Iterable[SubscriptionSettings], scale: Scale
) -> Iterator[Manifest]:
    """Yields the ScaledObject, after the TriggerAuthentication for the broker if it needs one.

    Raises:
        ConfigError: a transport has no scaler, the Secret has no credentials for it, or no
            subscription is shared by processes.
    """
    # Each process has a broadcast group of its own: another process takes no work from it.
    shared = [one for one in subscriptions if not one.broadcast]
    if not shared:
        raise ConfigError(
            "no handler shares its messages between processes: nothing to scale", code=EXPORT
        )
    triggers = _from_prometheus(shared, scale) if scale.prometheus else None
    found = [*(triggers or _from_broker(config, shared, scale))]
    credentials = {name: key for one in found for name, key in one.credentials.items()}
    name = f"{workload.name}-scaler"
    if credentials:
        yield _authentication(name, workload, credentials)
    yield {
        "apiVersion": _API,
        "kind": "ScaledObject",
        "metadata": {"name": workload.name},
        "spec": {
            "scaleTargetRef": {"name": workload.name},
            "minReplicaCount": scale.least,
            "maxReplicaCount": scale.most,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _SCALING}},
            "triggers": [_trigger(one, name) for one in found],
        },
    }


def _from_broker(
    config: Config, subscriptions: Iterable[SubscriptionSettings], scale: Scale
) -> Iterator[ScalerTrigger]:
    owner = ""
    for subscription in subscriptions:
        name = subscription.transport
        settings = transport_settings(config, Clock(), name)
        for trigger in _triggers_of(settings.url.scheme)(settings, subscription, scale.lag):
            # The Secret has one URL, which is that of the default transport, and one password.
            if trigger.credentials:
                owner = owner or name
            if (trigger.credentials and owner != name) or (trigger.reads_url and name != DEFAULT):
                raise ConfigError(
                    f"KEDA cannot log in to the transport {name}, because the Secret has the "
                    "credentials of another one; give --prometheus URL",
                    code=EXPORT,
                )
            yield trigger


def _triggers_of(scheme: str) -> Triggers:
    """Returns the function that makes the triggers of a transport. Raises ConfigError."""
    built_in = BY_SCHEME.get(scheme)
    if built_in is None or not built_in.scaling:
        raise ConfigError(
            f"KEDA has no scaler for {scheme}:// of Protoflow; give --prometheus URL, so"
            " that it reads the metric protoflow_lag_messages",
            code=EXPORT,
        )
    module, _, function = built_in.scaling.partition(":")
    found: Triggers = getattr(importlib.import_module(f"protoflow.transports.{module}"), function)
    return found


def _from_prometheus(
    subscriptions: Iterable[SubscriptionSettings], scale: Scale
) -> Iterator[ScalerTrigger]:
    for one in subscriptions:
        # Each process reports the lag of the whole group.
        query = f'max(protoflow_lag_messages{{topic="{one.topic}",group="{one.group}"}})'
        metadata = {
            "serverAddress": scale.prometheus,
            "query": query,
            "threshold": str(scale.lag),
        }
        yield ScalerTrigger(type="prometheus", metadata=metadata)


def _trigger(one: ScalerTrigger, authentication: str) -> Manifest:
    found: dict[str, Any] = {"type": one.type, "metadata": dict(one.metadata)}
    if one.credentials:
        found["authenticationRef"] = {"name": authentication}
    return found


def _authentication(name: str, workload: Workload, credentials: Mapping[str, str]) -> Manifest:
    return {
        "apiVersion": _API,
        "kind": "TriggerAuthentication",
        "metadata": {"name": name},
        "spec": {
            "secretTargetRef": [
                {"parameter": parameter, "name": workload.secret, "key": key}
                for parameter, key in credentials.items()
            ]
        },
    }
