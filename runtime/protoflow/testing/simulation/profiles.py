"""What can happen on each transport, and no more."""

from __future__ import annotations

import enum

from protoflow.dataclass_record import dataclass_record
from protoflow.errors import ConfigError
from protoflow.transport.capabilities import Capabilities


class Lending(enum.Enum):
    """How a broker lends messages."""

    #: Each for a time: JetStream.
    EACH = "each"
    #: All that a session holds, while it reports: SQLite.
    SESSION = "session"
    #: Until the connection ends: RabbitMQ.
    CONNECTION = "connection"
    #: Whole partitions, while the process is a member of its group: Kafka.
    PARTITION = "partition"


@dataclass_record
class Profile:
    """A transport, as far as a simulation knows it.

    Attributes:
        name: its name.
        capabilities: what it claims, as the transport itself.
        lending: how it lends messages.
        single_active: of an ordered group one process consumes at a time.
        own_retries: waits for retries are published to a place of the group's own.
        deduplicates: a message with a deduplication id is taken once.
        faults: the faults of calls that can happen, by the kind of call.
    """

    name: str
    capabilities: Capabilities
    lending: Lending
    single_active: bool = False
    own_retries: bool = False
    deduplicates: bool = False
    faults: tuple[tuple[str, tuple[str, ...]], ...] = ()


#: refused: not done, and known so; lost: done, but the answer is lost; partial: some of it is
#: done; flap: the connection ends; slow: the answer takes longer than a lease; unheard: this and
#: all such calls are refused for longer than a lease.
_SQLITE = Profile(
    name="sqlite",
    capabilities=Capabilities(
        durable=True, processes=True, per_key=True, per_partition=True, retains=True,
        delayed_publish=True, broker_retry=True, retry_lateness=1.0, persists_attempts=True,
        counts_deliveries=True, atomic=True, dead_letters=True, ordered_replays=True, leases=True,
        lag=True, proves_killers=True,
    ),
    lending=Lending.SESSION,
    faults=(
        ("settle", ("refused", "slow")), ("submit", ("refused", "slow")), ("fetch", ("refused",)),
        ("renew", ("refused",)),
    ),
)  # fmt: skip
_JETSTREAM = Profile(
    name="jetstream",
    capabilities=Capabilities(
        durable=True, processes=True, per_key=True, per_partition=True, retains=True,
        broker_retry=True, retry_lateness=1.0, counts_deliveries=True, dead_letters=True,
        ordered_replays=True, leases=True, lag=True, proves_killers=True,
    ),
    lending=Lending.EACH,
    single_active=True,
    own_retries=True,
    deduplicates=True,
    faults=(
        ("settle", ("refused", "lost", "partial", "slow")),
        ("submit", ("refused", "lost", "partial", "slow")),
        ("fetch", ("refused",)), ("renew", ("refused", "lost", "unheard")),
    ),
)  # fmt: skip
_RABBITMQ = Profile(
    name="rabbitmq",
    capabilities=Capabilities(
        durable=True, processes=True, per_key=True, per_partition=True, delayed_publish=True,
        max_delay=(2**26 - 1) * 0.1, broker_retry=True, retry_lateness=6.0, counts_deliveries=True,
        dead_letters=True, ordered_replays=True, leases=True, lag=True, proves_killers=True,
    ),
    lending=Lending.CONNECTION,
    single_active=True,
    own_retries=True,
    faults=(
        ("settle", ("flap",)), ("submit", ("lost", "partial", "flap")), ("fetch", ("flap",)),
    ),
)  # fmt: skip

_KAFKA = Profile(
    name="kafka",
    capabilities=Capabilities(
        durable=True, processes=True, per_key=True, per_partition=True, retains=True,
        broker_retry=True, retry_lateness=5.0, dead_letters=True, ordered_replays=True, lag=True,
        proves_killers=True, max_message_bytes=1048576,
    ),
    lending=Lending.PARTITION,
    faults=(
        ("settle", ("refused", "lost", "slow")), ("submit", ("refused", "lost", "partial", "slow")),
        ("fetch", ("refused", "lost")), ("join", ("refused", "lost")),
    ),
)  # fmt: skip

PROFILES = {profile.name: profile for profile in (_SQLITE, _JETSTREAM, _RABBITMQ, _KAFKA)}


def profile_of(name: str) -> Profile:
    """Returns the profile of a transport. Raises ConfigError if there is none."""
    profile = PROFILES.get(name)
    if profile is None:
        known = ", ".join(sorted(PROFILES))
        raise ConfigError(f"as_={name!r}: no such transport can be simulated; known are {known}")
    return profile
