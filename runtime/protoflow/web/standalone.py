"""The pages without a service: a broker, a contract, and no running handler."""

from __future__ import annotations

from collections.abc import Sequence

from protoflow.clock import Clock
from protoflow.config.settings import Config
from protoflow.connection import Connection
from protoflow.contract.catalog import Catalog
from protoflow.dead_letters.access import dead_letters_of_service
from protoflow.error_codes import NOT_RUNNING
from protoflow.errors import RegistrationError
from protoflow.observability.health import Health
from protoflow.observability.report import Reporter
from protoflow.pipeline import HandlerSpec
from protoflow.registrations.plan import plan
from protoflow.registrations.registration import of_method
from protoflow.routing.transport import claims_of, learn, parts_of
from protoflow.scheduling.scheduler import Scheduler
from protoflow.stats.handlers import Counters
from protoflow.transport.interface import SubscriptionSettings, Transport
from protoflow.web.host import Host


class _Watched:
    """The data of a broker that reports need."""

    def __init__(self, transport: Transport, watched: Sequence[SubscriptionSettings]) -> None:
        self.counters = Counters()
        self.transport = transport
        self.watched = watched
        self.subscriptions: Sequence[Scheduler] = ()
        self.counted: Sequence[Scheduler] = ()

    def publish_topic(self, spec: HandlerSpec) -> str:
        """Returns an empty text, because nothing publishes here."""
        return ""


def standalone(connection: Connection, config: Config, catalog: Catalog) -> Host:
    """Returns the routes' view of a broker.

    Args:
        connection: the open connection to the broker.
        config: the settings of the broker.
        catalog: the contract; it may be empty.

    Raises:
        ConfigError, RegistrationError, CapabilityError: the same errors as at the start of a
        service.
    """
    transport, clock = connection.transport, Clock()
    registrations = [of_method(method, _elsewhere, sync=True) for method in catalog.methods]
    plans = plan(registrations, config, claims_of(transport))
    learn(transport, [one.settings for one in plans])
    watched = _Watched(transport, [one.settings for one in plans])
    for one in plans:
        for handler in one.handlers:
            if handler.dead_letter_topic:
                watched.counters.dead_letters.topic(handler.dead_letter_topic)

    def health() -> Health:
        parts = parts_of(transport).items()
        broken = {f"transport {name}".rstrip(): part.health() for name, part in parts}
        problems = {name: text for name, text in broken.items() if text is not None}
        return Health(live=True, ready=not problems, problems=problems)

    def named(name: str) -> Scheduler:
        raise RegistrationError(
            f"{name} does not run in this process; ask the HTTP API of the service that has it",
            code=NOT_RUNNING,
        )

    return Host(
        config=config,
        reporter=Reporter(watched, clock, config),
        dead_letters=dead_letters_of_service(
            transport, watched.counters.dead_letters, clock, connection.journal
        ),
        health=health, named=named, registrations=lambda: registrations, started=lambda: True,
        publish=connection.publish_outputs, journal=connection.journal, contract=catalog,
        alone=True,
    )  # fmt: skip


def _elsewhere(*_given: object) -> None:
    """Stands for handlers that run in other processes."""
    raise RuntimeError("this process runs no handlers")
