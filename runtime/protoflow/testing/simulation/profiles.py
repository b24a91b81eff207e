"""The behaviour and the possible faults of each transport that can be simulated."""

from __future__ import annotations

import enum

from protoflow.dataclass_record import dataclass_record
from protoflow.error_codes import SIMULATION
from protoflow.errors import ConfigError
from protoflow.transport.capabilities import Capabilities


class Lending(enum.Enum):
    """The time for which a broker lends a message."""

    #: JetStream lends each message for a fixed time.
    EACH = "each"
    #: SQLite lends all messages of a session as long as the session reports.
    SESSION = "session"
    #: RabbitMQ lends messages until the connection ends.
    CONNECTION = "connection"
    #: Kafka lends whole partitions as long as the process is a member of its group.
    PARTITION = "partition"


@dataclass_record
class Profile:
    """A transport, as the simulation sees it.

    Attributes:
        name: its name.
        capabilities: the same as those of the real transport.
        lending: the time for which it lends messages.
        single_active: whether only one process at a time consumes for an ordered group.
        own_retries: whether retries are published to a place of the group's own, and wait there.
        deduplicates: whether it drops a message whose deduplication id it has seen.
        faults: the possible faults, by the kind of call.
    """

    name: str
    capabilities: Capabilities
    lending: Lending
    single_active: bool = False
    own_retries: bool = False
    deduplicates: bool = False
    faults: tuple[tuple[str, tuple[str, ...]], ...] = ()


#: The faults of calls: refused (not done, and the caller knows), lost (done, but the answer is
#: lost), partial (partly done), flap (the connection ends), slow (the answer takes longer than a
#: lease), unheard (all calls of this kind are refused for longer than a lease).
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
        raise ConfigError(
            f"as_={name!r}: no such transport can be simulated; known are {known}", code=SIMULATION
        )
    return profile
