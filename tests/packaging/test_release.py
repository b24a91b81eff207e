"""What refuses a release: a version without a section, a stray file, a version in two places."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml
from packaging.metadata import Metadata
from packaging.specifiers import SpecifierSet

from scripts.release import changelog, contents, floors
from scripts.release.installation import IMPORTS
from tests.packaging.conftest import ROOT, Distributions

pytestmark = [pytest.mark.xdist_group("distributions"), pytest.mark.timeout(300)]

CHANGELOG = """# Changelog

## [Unreleased]

- Something.

## [0.2.0] - 2026-12-01

### Added

- More.

## [0.1.0] - 2026-11-28

## [0.0.9] - soon

- Less.
"""


def test_the_section_of_a_version_is_its_text() -> None:
    assert changelog.section(CHANGELOG, "0.2.0") == "### Added\n\n- More."


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("0.3.0", "has no section for 0.3.0; name it `## [0.3.0] - YYYY-MM-DD`"),
        ("0.2", "has no section"),
        ("Unreleased", "has no section"),
        ("0.1.0", "is empty"),
        ("0.0.9", "has no section"),
    ],
)
def test_a_version_without_a_section_is_refused(version: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        changelog.section(CHANGELOG, version)
    assert reason in str(caught.value)


def test_a_tag_of_another_version_is_refused() -> None:
    script = ROOT / "scripts" / "release" / "changelog.py"
    done = subprocess.run([sys.executable, script, "v99.0.0"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"v99.0.0 is not the version {changelog.stated_version()}" in done.stderr


def test_the_workflow_refuses_first_and_holds_no_token() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    workflow = yaml.safe_load(text)
    assert "secrets." not in text
    check, publish = workflow["jobs"]["check"], workflow["jobs"]["publish"]
    steps = [step["run"] for step in check["steps"] if "run" in step]
    assert steps[0].startswith("python3 scripts/release/changelog.py")
    assert steps[1].startswith("make release-check")
    assert publish["needs"] == "check"
    assert publish["permissions"] == {"id-token": "write"}
    assert "permissions" not in check


def test_one_place_states_the_version() -> None:
    assert list(contents.version_problems()) == []


def test_wheel_and_sdist_hold_what_they_must_and_nothing_else(distributions: Distributions) -> None:
    assert list(contents.wheel_problems(distributions.wheel)) == []
    assert list(contents.sdist_problems(distributions.sdist)) == []


def test_a_stray_and_a_missing_file_are_reported(
    distributions: Distributions, tmp_path: Path
) -> None:
    wheel = tmp_path / distributions.wheel.name
    with zipfile.ZipFile(distributions.wheel) as old, zipfile.ZipFile(wheel, "w") as new:
        for name in old.namelist():
            if name != "protoflow/py.typed":
                new.writestr(name, b"")
        new.writestr("tests/secret.txt", b"")
    assert list(contents.wheel_problems(wheel)) == [
        f"{wheel.name} lacks protoflow/py.typed",
        f"{wheel.name} holds tests/secret.txt",
    ]


def test_the_metadata_is_valid(distributions: Distributions) -> None:
    with zipfile.ZipFile(distributions.wheel) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        raw = archive.read(name)
    metadata = Metadata.from_email(raw, validate=True)
    assert str(metadata.version) == changelog.stated_version()
    assert metadata.description_content_type == "text/markdown"
    assert message_from_bytes(raw)["License-Expression"] == "MIT"


def test_every_extra_is_tried_and_every_requirement_has_a_floor(
    distributions: Distributions,
) -> None:
    assert set(floors.extras(distributions.wheel)) == set(IMPORTS)
    names = {one.name for one in floors.requirements(distributions.wheel)}
    assert set(floors.floors(distributions.wheel)) == names - {"protoc-gen-protoflow"}


def test_every_upper_bound_is_argued(distributions: Distributions) -> None:
    """With its range, in the table of docs/compatibility.md, and no other requirement is there."""
    text = (ROOT / "docs" / "compatibility.md").read_text()
    argued = set(re.findall(r"^\| ([a-z-]+) \| `([^`]+)` \|", text, re.M))
    bounded = {
        (one.name, str(one.specifier))
        for one in floors.requirements(distributions.wheel)
        if "<" in str(one.specifier)
    }
    assert {(name, SpecifierSet(bounds)) for name, bounds in argued} == {
        (name, SpecifierSet(bounds)) for name, bounds in bounded
    }
