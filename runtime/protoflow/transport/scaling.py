"""What an autoscaler reads at the broker: https://keda.sh/docs/latest/scalers/."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from protoflow.dataclass_record import dataclass_record


@dataclass_record
class ScalerTrigger:
    """One trigger of KEDA.

    Attributes:
        type: the name of the scaler.
        metadata: its parameters, without user, password or token.
        credentials: parameters that come from a Secret -> the key in it.
        reads_url: whether it reads the URL of the broker from the environment of the service.
    """

    type: str
    metadata: Mapping[str, str]
    credentials: Mapping[str, str] = field(default_factory=dict)
    reads_url: bool = False
