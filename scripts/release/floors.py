"""The lowest versions that the wheel allows, as constraints for pip."""

from __future__ import annotations

import zipfile
from email.parser import Parser
from pathlib import Path

from packaging.requirements import Requirement


def requirements(wheel: Path) -> list[Requirement]:
    """Returns what a wheel requires, extras included."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    return [Requirement(one) for one in metadata.get_all("Requires-Dist") or []]


def floors(wheel: Path) -> dict[str, str]:
    """Returns the lowest version of each distribution that the wheel requires by itself."""
    found = {}
    for requirement in requirements(wheel):
        lowest = [one.version for one in requirement.specifier if one.operator == ">="]
        if lowest and requirement.name != "protoc-gen-protoflow":
            found[requirement.name] = lowest[0]
    return found


def extras(wheel: Path) -> list[str]:
    """Returns the extras of a wheel, without `all`."""
    found: dict[str, None] = {}
    for requirement in requirements(wheel):
        marker = str(requirement.marker or "")
        if 'extra == "' in marker:
            found[marker.partition('extra == "')[2].partition('"')[0]] = None
    return [extra for extra in found if extra != "all"]
