"""Reads the files of a contract from a git ref."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from protoflow.error_codes import OLD_CONTRACT
from protoflow.errors import ConfigError

_ENDINGS = (".proto", ".toml")
_NAMES = ("buf.yaml",)
_FILE = "100"


def checkout(ref: str, into: Path) -> Path:
    """Writes .proto files and settings of a ref into a directory; returns the project's folder.

    Raises:
        ConfigError: the ref or the repository does not exist, or git is not installed.
    """
    if ref.startswith("-"):
        raise ConfigError(
            f"{ref} is neither a git ref nor a directory nor a file", code=OLD_CONTRACT
        )
    # With --verify and ^{commit}, git refuses names of other objects.
    found = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if found.returncode:
        said = found.stderr.decode(errors="replace").strip().splitlines()
        reason = said[0] if said else "no commit of that name"
        raise ConfigError(
            f"{ref} is neither a git ref nor a directory nor a file ({reason}); in a shallow clone,"
            " fetch it first",
            code=OLD_CONTRACT,
        )
    commit = found.stdout.decode().strip()
    prefix = _git("rev-parse", "--show-prefix").stdout.decode().strip()
    files = dict(_files(commit))
    blobs = _git("cat-file", "--batch", stdin="".join(f"{blob}\n" for blob in files.values()))
    content = blobs.stdout
    for name in files:
        header, _, content = content.partition(b"\n")
        size = int(header.split()[2])
        place = into / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content[:size])
        content = content[size + 1 :]
    directory = into / prefix
    if not directory.is_dir():
        raise ConfigError(
            f"{ref} has no .proto file in {prefix or 'the repository'}", code=OLD_CONTRACT
        )
    return directory


def _files(commit: str) -> Iterator[tuple[str, str]]:
    """Yields the needed paths, with their blobs."""
    listed = _git("ls-tree", "-r", "-z", "--full-tree", commit).stdout.decode(errors="replace")
    for entry in listed.split("\0"):
        meta, _, name = entry.partition("\t")
        path = PurePosixPath(name)
        if meta.startswith(_FILE) and (path.suffix in _ENDINGS or path.name in _NAMES):
            yield name, meta.split()[2]


def _git(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(  # noqa: S603  no shell is used
            ["git", *arguments],  # noqa: S607  the user's own git is used
            input=stdin.encode(), capture_output=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise ConfigError(
            "git is not installed; name a directory or an image instead", code=OLD_CONTRACT
        ) from None
