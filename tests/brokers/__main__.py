"""`python -m tests.brokers up|down|status [kafka|rabbitmq|nats|postgresql|redis|sqs]...`."""

from __future__ import annotations

import argparse

from tests.brokers import KINDS, find, keeper
from tests.brokers.base import BrokerUnavailable, RunningBroker


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.brokers", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status", "keep"])
    parser.add_argument("--stay", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", metavar="broker", help=", ".join(KINDS))
    arguments = parser.parse_args()
    names: list[str] = arguments.names or [*KINDS]
    if unknown := [name for name in names if name not in KINDS]:
        parser.error(f"no such broker: {', '.join(unknown)}; known are {', '.join(KINDS)}")
    match arguments.command:
        case "keep":
            keeper.keep(names, stay=arguments.stay)
        case "down":
            print("stopped" if keeper.stop() else "nothing to stop")
        case "up":
            return _up(names)
        case _:
            return sum(_report(name, _find(name)) for name in names)
    return 0


def _up(names: list[str]) -> int:
    if kept := keeper.state():
        keeper.stop()  # one keeper for all of them
        names = [*dict.fromkeys([*kept, *names])]
    found = {name: _find(name) for name in names}
    missing = [name for name, broker in found.items() if broker is None]
    if missing:
        found |= keeper.start(missing, stay=True)
    return sum(_report(name, broker) for name, broker in found.items())


def _find(name: str) -> RunningBroker | BrokerUnavailable | None:
    try:
        return find(name)
    except BrokerUnavailable as error:
        return error


def _report(name: str, broker: RunningBroker | BrokerUnavailable | None) -> bool:
    if isinstance(broker, RunningBroker):
        print(broker.line())
        return False
    print(f"{name:<10} MISSING  {broker or 'not running'}")
    return True


if __name__ == "__main__":
    raise SystemExit(main())
