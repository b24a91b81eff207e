"""All choices of a simulation, made by one seed."""

from __future__ import annotations

from hashlib import blake2b

_UNIT = 1.0 / (1 << 64)
_BITS = (1 << 64) - 1
#: Of a linear congruential generator: a seed chooses a thousand times, and hashes are slow.
_FACTOR, _STEP = 6364136223846793005, 1442695040888963407


class Choices:
    """Chooses by (site, n-th occurrence), so what happens at one site shifts no other.

    Args:
        seed: equal seeds choose equally.
        halvings: how often all latencies are halved.
    """

    def __init__(self, seed: int, halvings: int = 0) -> None:
        self.seed = seed
        self._scale = 0.5**halvings
        self._key = seed.to_bytes(8, "big")
        self._states: dict[str, int] = {}

    def number(self, site: str) -> float:
        """Returns a number from 0 up to 1, the next one of this site."""
        state = self._states.get(site)
        if state is None:
            state = self._hash(site)
        self._states[site] = state = (state * _FACTOR + _STEP) & _BITS
        return ((state ^ state >> 32) * _FACTOR & _BITS) * _UNIT

    def fixed(self, site: str) -> float:
        """Returns the number of this site, always the same."""
        return self._hash(site) * _UNIT

    def whole(self, site: str, least: int, most: int) -> int:
        """Returns a whole number, both bounds included."""
        return least + int(self.number(site) * (most - least + 1))

    def between(self, site: str, least: float, most: float) -> float:
        """Returns a number of a range."""
        return least + self.number(site) * (most - least)

    def latency(self, site: str, usual: float = 0.002) -> float:
        """Returns seconds: mostly about the usual, of a hundred one is fifty times as long."""
        number, usual = self.number(site), usual * self._scale
        if number > 0.99:
            return usual * 50 * (1 + (number - 0.99) * 100)
        return usual * (0.25 + 1.5 * number)

    def _hash(self, site: str) -> int:
        digest = blake2b(site.encode(), digest_size=8, key=self._key).digest()
        return int.from_bytes(digest, "big")
