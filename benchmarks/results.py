"""What was measured, kept as JSON, so that the report can be made again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.model import Measured


@dataclass
class Measurement:
    """One group's results and their circumstances."""

    form: str
    runs: int
    date: str
    processor: str
    versions: str
    subjects: dict[str, Measured] = field(default_factory=dict)


class Book:
    """A file with the last measurement of each group."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._groups: dict[str, Measurement] = {}
        if path.exists():
            for name, kept in json.loads(path.read_text()).items():
                subjects = {key: Measured(**value) for key, value in kept.pop("subjects").items()}
                self._groups[name] = Measurement(**kept, subjects=subjects)

    def __contains__(self, group: str) -> bool:
        return group in self._groups

    def __getitem__(self, group: str) -> Measurement:
        return self._groups[group]

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def keep(self, group: str, measurement: Measurement) -> None:
        """Replaces what was known of a group, at once in the file."""
        self._groups[group] = measurement
        self._path.parent.mkdir(parents=True, exist_ok=True)
        whole = {name: asdict(kept) for name, kept in self._groups.items()}
        self._path.write_text(json.dumps(whole, indent=1) + "\n")
