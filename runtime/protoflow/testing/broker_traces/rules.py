"""What a broker may do with a message: one table, and the differences between brokers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from protoflow.testing.simulation.profiles import PROFILES, Lending, Profile

#: State of a copy, event, next state, and the rule that must hold. `gone` means that the copy no
#: longer exists. The effects of `publish` and `settle` happen unseen between call and return.
TRANSITIONS: tuple[tuple[str, str, str, str], ...] = (
    ("coming", "stored", "free", ""),
    ("coming", "taken for a repetition", "gone", "deduplicates"),
    ("coming", "refused", "gone", ""),
    ("free", "delivered", "held", ""),
    ("held", "settle called", "acting", ""),
    ("held", "given up by its holder", "free", ""),
    ("held", "taken away", "free", ""),
    ("acting", "acknowledged", "gone", "confirms"),
    ("acting", "acknowledged", "soft", "confirms not"),
    ("acting", "given back", "free", ""),
    ("acting", "settlement lost", "held", ""),
    ("acting", "taken away", "free", ""),
    ("soft", "forgotten", "free", "confirms not"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The differences between brokers.

    Attributes:
        profile: the behaviour of the simulated broker of this transport.
        confirms: whether a settled message is never delivered again. On other brokers it is, if
            the connection or membership ends soon after; on JetStream, if a redelivery was on its
            way when it was settled.
        disturbances: the events without which a settled message is not delivered again.
        expires: whether a living holder keeps a message until its lease ends. Other brokers take
            it away whenever they lose contact with the holder.
        positions: whether a message keeps its position.
        in_order: whether a member gets the messages of a shard by position, except returned ones.
        persists: whether a returned message keeps its number of failed runs.
    """

    profile: Profile
    confirms: bool
    disturbances: frozenset[str]
    expires: bool
    positions: bool
    in_order: bool
    persists: bool

    @property
    def deduplicates(self) -> bool:
        """Returns whether the broker stores a repeated publish only once."""
        return self.profile.deduplicates

    def allows(self, state: str, happening: str) -> frozenset[str]:
        """Returns the next states of a copy."""
        return frozenset(
            after
            for before, what, after, rule in TRANSITIONS
            if (before, what) == (state, happening) and self._holds(rule)
        )

    def _holds(self, rule: str) -> bool:
        name, negated, _ = rule.partition(" not")
        return not rule or bool(getattr(self, name)) is not bool(negated)


#: Events that end a connection or a membership, or delay a delivery.
_ENDS = frozenset(("crash", "lost", "revoke", "closed", "stopped", "join", "fault"))
_DELAYS = frozenset(("lost", "fault"))


def rules_of(profile: Profile) -> Rules:
    """Returns the rules of a transport, derived from its model."""
    lending = profile.lending
    return Rules(
        profile=profile,
        confirms=lending is Lending.SESSION,
        disturbances=_DELAYS if lending is Lending.EACH else _ENDS,
        expires=lending in (Lending.EACH, Lending.SESSION),
        positions=lending is not Lending.CONNECTION,
        in_order=lending is Lending.PARTITION,
        persists=profile.capabilities.persists_attempts,
    )


#: Redis is not simulated. It lends each message for a time, and otherwise behaves like SQLite.
_REDIS = replace(PROFILES["sqlite"], name="redis", lending=Lending.EACH)
RULES = {profile.name: rules_of(profile) for profile in (*PROFILES.values(), _REDIS)}
