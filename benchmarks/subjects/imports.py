"""CPU of a statement above a bare interpreter: `... STATEMENT`.

Two fresh interpreters in turn, one with the statement and one without, after one that makes
the bytecode.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys


def cpu(statement: str) -> float:
    """CPU milliseconds of a fresh interpreter."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main(statement: str) -> None:
    """Measures once."""
    cpu(statement)
    bare, whole = cpu("pass"), cpu(statement)
    print(json.dumps({"cpu_ms": whole - bare, "bare_ms": bare}))


if __name__ == "__main__":
    main(sys.argv[1])
