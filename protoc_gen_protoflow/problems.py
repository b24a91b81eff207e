"""Mistakes in the user's .proto files, each with its location."""

from __future__ import annotations

from collections.abc import Iterable

from protoflow.error_codes import coded

from protoc_gen_protoflow.request import Location


def plain(line: str) -> str:
    """Returns text as one line. Only hand-made requests contain names with line breaks."""
    return line if line.isprintable() else repr(line)[1:-1]


class Problems:
    """Collects mistakes; a repeated mistake at the same location counts once."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, tuple[int, int], str], None] = {}

    def add(self, place: Location, text: str, code: str) -> None:
        """Adds an error at a location; the text ends with the fix, and its code follows."""
        position = place.file.position(place.path)
        where = ":".join((place.file.name, *(str(number) for number in position or ())))
        line = ": ".join(part for part in (where, place.name, text) if part)
        self._found[place.file.name, position or (0, 0), coded(plain(line), code)] = None

    def extend(self, place: Location, texts: Iterable[str], code: str) -> None:
        """Adds several errors at one location."""
        for text in texts:
            self.add(place, text, code)

    def __bool__(self) -> bool:
        return bool(self._found)

    def report(self) -> str:
        """Returns one line for each mistake, in the order of files and lines."""
        return "\n".join(line for _, _, line in sorted(self._found))
