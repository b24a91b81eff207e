"""The bases of generated handlers: nothing but their spec."""

from __future__ import annotations

import abc
from typing import ClassVar

from protoflow.contract.spec import ServiceSpec


class Handler(abc.ABC):
    """Base of generated handler classes; methods run on the event loop."""

    __slots__ = ()
    __protoflow_spec__: ClassVar[ServiceSpec]


class HandlerSync(abc.ABC):
    """Base of generated handler classes whose methods run in threads."""

    __slots__ = ()
    __protoflow_spec__: ClassVar[ServiceSpec]
