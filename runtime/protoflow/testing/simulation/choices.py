"""All random choices of a simulation, which follow from one seed."""

from __future__ import annotations

from hashlib import blake2b

_UNIT = 1.0 / (1 << 64)
_BITS = (1 << 64) - 1
#: A linear congruential generator. A seed chooses a thousand times, and hashes would be slow.
_FACTOR, _STEP = 6364136223846793005, 1442695040888963407


class Choices:
    """Chooses by site and occurrence, so that a choice at one site changes no choice at another.

    Args:
        seed: equal seeds give equal choices.
        halvings: how often all latencies are halved.
    """

    def __init__(self, seed: int, halvings: int = 0) -> None:
        self.seed = seed
        self._scale = 0.5**halvings
        self._key = seed.to_bytes(8, "big")
        self._states: dict[str, int] = {}

    def number(self, site: str) -> float:
        """Returns the next number of a site, from 0 up to 1."""
        state = self._states.get(site)
        if state is None:
            state = self._hash(site)
        self._states[site] = state = (state * _FACTOR + _STEP) & _BITS
        return ((state ^ state >> 32) * _FACTOR & _BITS) * _UNIT

    def fixed(self, site: str) -> float:
        """Returns the constant number of a site, from 0 up to 1."""
        return self._hash(site) * _UNIT

    def whole(self, site: str, least: int, most: int) -> int:
        """Returns a whole number from `least` to `most`, both included."""
        return least + int(self.number(site) * (most - least + 1))

    def between(self, site: str, least: float, most: float) -> float:
        """Returns a number between two bounds."""
        return least + self.number(site) * (most - least)

    def latency(self, site: str, usual: float = 0.002) -> float:
        """Returns seconds, mostly near the usual value; one in a hundred is fifty times as long."""
        number, usual = self.number(site), usual * self._scale
        if number > 0.99:
            return usual * 50 * (1 + (number - 0.99) * 100)
        return usual * (0.25 + 1.5 * number)

    def _hash(self, site: str) -> int:
        digest = blake2b(site.encode(), digest_size=8, key=self._key).digest()
        return int.from_bytes(digest, "big")
