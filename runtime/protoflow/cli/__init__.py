"""The command `protoflow`. Needs the extra `cli`."""

from __future__ import annotations

import sys


def run() -> None:
    """Runs the command with the arguments of the process, and ends the process."""
    try:
        import click  # noqa: F401  only asked for
    except ModuleNotFoundError:
        sys.stderr.write("the command needs click; run: pip install 'protoc-gen-protoflow[cli]'\n")
        raise SystemExit(2) from None
    from protoflow.cli.app import main

    raise SystemExit(main(sys.argv[1:]))
