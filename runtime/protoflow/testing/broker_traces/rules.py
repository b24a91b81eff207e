"""What a broker may do with a message: one table, and what differs from broker to broker."""

from __future__ import annotations

from dataclasses import dataclass, replace

from protoflow.testing.simulation.profiles import PROFILES, Lending, Profile

#: State of a copy, what happens to it, its next state, and the rule that must hold; `gone` is no
#: copy. What happens between call and return of `publish` and `settle` happens unseen.
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
    """What differs from broker to broker.

    Attributes:
        profile: what the simulated broker of this transport does.
        confirms: what is settled does not come again. Elsewhere it does if the connection or the
            membership ends soon after; on JetStream if a redelivery was on its way by then.
        disturbances: the events without which it does not.
        expires: a message is taken away from a living holder only when its lease is over;
            elsewhere whenever the broker misses the holder.
        positions: a message keeps its position.
        in_order: a member gets the messages of a shard by position, unless it gave them back.
        persists: a message that is given back keeps the failed runs.
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
        """Whether a repeated publish is taken once."""
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


#: What ends a connection or a membership, and what makes a delivery arrive late.
_ENDS = frozenset(("crash", "lost", "revoke", "closed", "stopped", "join", "fault"))
_DELAYS = frozenset(("lost", "fault"))


def rules_of(profile: Profile) -> Rules:
    """Returns the rules of a transport, derived from what its model does."""
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


#: Redis is not simulated: it lends each message for a time, and is otherwise as SQLite.
_REDIS = replace(PROFILES["sqlite"], name="redis", lending=Lending.EACH)
RULES = {profile.name: rules_of(profile) for profile in (*PROFILES.values(), _REDIS)}
