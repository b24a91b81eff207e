"""A mutation, rolled over one fresh broker after another."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from protoflow import Config
from protoflow.breaking.compare import compare
from protoflow.breaking.deployment import deployment
from protoflow.breaking.verdict import Rollout, Verdict

from tests.breaking.mutations import Mutation
from tests.breaking.schedules import Schedule, recover
from tests.breaking.versions import Version, version
from tests.breaking.world import Findings, KafkaWorld, SqliteWorld, World


class Trial:
    """Rolls a mutation.

    Args:
        mutation: the two versions.
        url: the transport, for the settings of a version.
    """

    def __init__(self, mutation: Mutation, url: str) -> None:
        self._mutation = mutation
        self.old = version("old", mutation.old, self._config(mutation.old_settings, url))
        self.new = version("new", mutation.new, self._config(mutation.new_settings, url))
        self._elsewhere = [
            version(name, text, self.old.config)
            for name, text in zip(("audit", "audit 2"), mutation.elsewhere or (), strict=False)
        ]

    def verdict(self, scheme: str) -> tuple[Verdict, Rollout]:
        """The worst verdict on a transport, and the rollout that avoids all that happens."""
        changes = compare(self.old.contract, self.new.contract, scheme)
        consequences = [one.consequence(scheme) for one in changes]
        worst = max((one.verdict for one in consequences), key=_severity, default=Verdict.SAFE)
        parts = deployment(changes, scheme)
        return worst, parts[0].rollout if parts else Rollout.ANY

    async def roll(self, schedule: Schedule, *, keep: bool = False) -> tuple[Findings, Findings]:
        """What is found after a schedule, and after the old version has run once more."""
        url = self._fresh()
        old = self._at(self.old, self._mutation.old_settings, url)
        new = self._at(self.new, self._mutation.new_settings, url)
        elsewhere = [self._at(one, {}, url) for one in self._elsewhere]
        world = self._world(old, old._replace(name="new") if keep else new, elsewhere)
        try:
            await schedule(world)
            found = recovered = world.findings()
            if found.missing and not keep:
                await recover(world)
                recovered = world.findings()
        finally:
            await world.close()
        return found, recovered

    def _at(self, version: Version, settings: Any, url: str) -> Version:
        return version._replace(config=self._config(settings, url))

    def _config(self, settings: Any, url: str) -> Config:
        other = {**settings}
        url = url.replace("{place}", other.pop("transport", "queue"))
        return Config(transport=url, environ={}, shutdown_timeout=10.0, **other)

    def _fresh(self) -> str:
        raise NotImplementedError

    def _world(self, old: Version, new: Version, elsewhere: list[Version]) -> World:
        return World(old, new, elsewhere, self._mutation)


class SqliteTrial(Trial):
    """Over a new file each time."""

    def __init__(self, mutation: Mutation, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        super().__init__(mutation, self._fresh())

    def _fresh(self) -> str:
        self._count += 1
        return f"sqlite:///{self._folder}/{self._count}-{{place}}.db?poll_interval=0.01"

    def _world(self, old: Version, new: Version, elsewhere: list[Version]) -> World:
        return SqliteWorld(old, new, elsewhere, self._mutation)


class KafkaTrial(Trial):
    """Under a new namespace each time."""

    def __init__(self, mutation: Mutation, url: str) -> None:
        self._url = (
            f"{url}?commit_interval=0.1&heartbeat_interval=0.3&session_timeout=20&partitions=2"
        )
        self._namespace = ""
        super().__init__(mutation, self._fresh())

    def _fresh(self) -> str:
        self._namespace = f"breaking-{uuid.uuid4().hex[:10]}"
        return self._url

    def _config(self, settings: Any, url: str) -> Config:
        # Of messages that fail until they are released there is nothing to wait for.
        mine = {"namespace": self._namespace, "rebalance_drain": 0.2}
        return super()._config({**mine, **settings}, url)

    def _world(self, old: Version, new: Version, elsewhere: list[Version]) -> World:
        return KafkaWorld(old, new, elsewhere, self._mutation)


def _severity(verdict: Verdict) -> int:
    return verdict.severity
