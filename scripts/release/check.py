"""Checks a release: `make release-check`, or parts of it: ARGS="build metadata floors".

Nothing is uploaded. Wheel, sdist and bill of materials are in dist/ afterwards.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from scripts.release import changelog, contents, floors
from scripts.release.newcomer import walk

ROOT = Path(__file__).parents[2]
DIST = ROOT / "dist"
INSTALLATION = ROOT / "scripts" / "release" / "installation.py"
#: The interpreters that are looked for on PATH, and among those of pyenv.
PYTHONS = ("3.11", "3.12", "3.13", "3.14", "3.14t")
#: What the tree keeps of the sdist, so that only the installed wheel can be imported.
KEPT = ("tests", "examples", "docs", "proto", "pyproject.toml", "README.md", "CHANGELOG.md")


class Failed(Exception):  # noqa: N818  a verdict, not an error of this script
    """A part of the release is not as it must be."""


def main(wanted: list[str]) -> int:
    """Runs the parts in their order; returns the exit status."""
    if unknown := [name for name in wanted if name not in PARTS]:
        print(f"no part of the release is called {unknown[0]}; there are {', '.join(PARTS)}")
        return 2
    failed = []
    for name, part in PARTS.items():
        if wanted and name not in wanted and not (name == "build" and not _built()):
            continue
        print(f"{name}: {part.__doc__}", flush=True)
        started = time.monotonic()
        try:
            for line in part():
                print(f"  {line}", flush=True)
        except (Failed, AssertionError) as problem:
            failed.append(name)
            print(f"  FAILED: {problem}", flush=True)
        print(f"  {time.monotonic() - started:.0f} s", flush=True)
    print(f"failed: {', '.join(failed)}" if failed else "the release can be made")
    return bool(failed)


def build() -> Iterator[str]:
    """Builds the sdist, and the wheel from the sdist."""
    shutil.rmtree(DIST, ignore_errors=True)
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", DIST, ROOT)
    yield from (f"{one.name}: {one.stat().st_size / 1000:.0f} kB" for one in sorted(DIST.iterdir()))


def contents_of_both() -> Iterator[str]:
    """Compares both with the repository: every template, proto, page and py.typed, and no more."""
    problems = [*contents.wheel_problems(_wheel()), *contents.sdist_problems(_sdist())]
    if problems:
        raise Failed("\n    ".join(problems))
    yield f"{contents.files(_wheel())} files in the wheel"


def metadata() -> Iterator[str]:
    """Checks the metadata and its README as the package index would; one place has the version."""
    done = _run(sys.executable, "-m", "twine", "check", "--strict", _wheel(), _sdist())
    yield f"twine: {done.stdout.count('PASSED')} of 2 files passed"
    if problems := list(contents.version_problems()):
        raise Failed("\n    ".join(problems))
    yield f"version {changelog.stated_version()}"
    try:
        changelog.section((ROOT / "CHANGELOG.md").read_text(), changelog.stated_version())
    except ValueError as error:
        yield f"before the tag: {error}"


def extras() -> Iterator[str]:
    """Installs each extra alone, imports what it is for, and runs the command."""
    wheel = str(_wheel())
    command = [sys.executable, str(INSTALLATION), wheel, "extras", *floors.extras(_wheel())]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            yield line.strip()
    if running.returncode:
        raise Failed("an extra cannot be used alone")


def pythons() -> Iterator[str]:
    """Runs tutorial, examples and modules of past levels from the wheel, on every Python."""
    found = dict(_interpreters())
    failed = []
    with tempfile.TemporaryDirectory(prefix="protoflow-tree-") as directory:
        tree = _tree(Path(directory))
        for version in PYTHONS:
            if version not in found:
                yield f"{version}: not on this machine"
                continue
            # Free-threaded Python is not supported: what works there is reported.
            what = ["core"] if version.endswith("t") else ["suite", tree]
            try:
                said = _run(found[version], INSTALLATION, _wheel(), *what)
                yield f"{version}: {said.stdout.strip()}"
            except Failed as problem:
                if what != ["core"]:
                    failed.append(version)
                yield f"{version}: FAILED\n{problem}"
    if failed:
        raise Failed(f"on {', '.join(failed)}")


def lowest() -> Iterator[str]:
    """Runs the same with the lowest version of every requirement."""
    pinned = {f"{name}=={version}" for name, version in floors.floors(_wheel()).items()}
    with tempfile.TemporaryDirectory(prefix="protoflow-tree-") as directory:
        constraints = Path(directory) / "floors.txt"
        constraints.write_text("\n".join(sorted(pinned)))
        tree = _tree(Path(directory) / "tree")
        said = _run(sys.executable, INSTALLATION, _wheel(), "suite", tree, constraints)
    yield ", ".join(sorted(pinned))
    yield said.stdout.strip()


def newcomer() -> Iterator[str]:
    """Walks from an empty environment to the first handled message and the dashboard."""
    yield from walk(_wheel())


def bill_of_materials() -> Iterator[str]:
    """Writes what the wheel with every extra brings along, as a CycloneDX bill of materials."""
    target = DIST / f"{_wheel().stem}.cdx.json"
    with tempfile.TemporaryDirectory(prefix="protoflow-sbom-") as directory:
        venv = Path(directory) / "venv"
        _run(sys.executable, "-m", "venv", venv)
        python = venv / "bin" / "python"
        _run(python, "-m", "pip", "install", "--quiet", f"{_wheel()}[all]")
        _run(
            *(sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"),
            *("--pyproject", ROOT / "pyproject.toml", "--output-file", target, python),
        )
    yield f"{target.name}: {target.read_text().count('bom-ref')} references"


PARTS: dict[str, Callable[[], Iterator[str]]] = {
    "build": build,
    "contents": contents_of_both,
    "metadata": metadata,
    "extras": extras,
    "pythons": pythons,
    "floors": lowest,
    "newcomer": newcomer,
    "sbom": bill_of_materials,
}


def _built() -> bool:
    return bool(list(DIST.glob("*.whl")) and list(DIST.glob("*.tar.gz")))


def _wheel() -> Path:
    (wheel,) = DIST.glob("*.whl")
    return wheel


def _sdist() -> Path:
    (sdist,) = DIST.glob("*.tar.gz")
    return sdist


def _tree(directory: Path) -> Path:
    """Unpacks the sdist, and leaves out its sources."""
    with tarfile.open(_sdist()) as archive:
        archive.extractall(directory, filter="data")
    (tree,) = (one for one in directory.iterdir() if one.is_dir())
    for one in tree.iterdir():
        if one.name not in KEPT:
            shutil.rmtree(one) if one.is_dir() else one.unlink()
    return tree


def _interpreters() -> Iterator[tuple[str, str]]:
    """Yields the versions and paths of the interpreters of this machine."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in PYTHONS:
        names = [*map(str, pyenv.glob(f"{version}.*/bin/python")), f"python{version}"]
        if named := os.environ.get(f"PYTHON_{version.replace('.', '_').upper()}"):
            names.insert(0, named)
        for name in names:
            if (path := shutil.which(name)) and _is_version(path, version):
                yield version, path
                break


def _is_version(path: str, version: str) -> bool:
    code = (
        "import sys, sysconfig, ensurepip, venv; print('%d.%d%s' % (*sys.version_info[:2], "
        "'t' if sysconfig.get_config_var('Py_GIL_DISABLED') else ''))"
    )
    done = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() == version


def _run(*command: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
