"""Every exception that Protoflow raises, in one tree.

    ProtoflowError
    ├── ConfigError            settings or options that cannot be used; lists all mistakes
    ├── MissingExtraError      an optional dependency that is not installed (an ImportError too)
    ├── GencodeError           a generated module newer than this runtime (an ImportError too)
    ├── RegistrationError      handlers that contradict each other or cannot be registered
    ├── CapabilityError        a demand that the transport cannot meet
    ├── TransportError         the broker or the way to it
    │   ├── ConnectionFailedError   no connection, or lost for longer than configured
    │   ├── AuthenticationError     refused credentials or rights
    │   ├── TopologyError           a topic, queue or stream that is missing or differs
    │   └── PublishError            a message that was not taken
    │       └── PublishRefusedError     ... and never will be: too large, not authorised
    ├── DecodeError            a payload that is no message of its type
    ├── InvalidMessageError    a message that violates the rules of its contract (a ValueError too)
    ├── DeadLetterNotFoundError
    ├── NotReplayableError     a dead letter that cannot be replayed, and why
    ├── ReplayError            dead letters that were not replayed, and why
    └── BatchFailed            raised by batch handlers to name the failed messages

An `Outcome` (see `protoflow.outcomes`) is no ProtoflowError: it is what a handler decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class ProtoflowError(Exception):
    """The root of all errors of Protoflow."""


class ConfigError(ProtoflowError):
    """Settings that cannot be used.

    Attributes:
        problems: every mistake found, one sentence each.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class MissingExtraError(ProtoflowError, ImportError):
    """An optional dependency is missing; the text is the command that installs it."""

    def __init__(self, extra: str, module: str) -> None:
        self.extra = extra
        super().__init__(
            f"{module} is not installed; run: pip install 'protoc-gen-protoflow[{extra}]'"
        )


class GencodeError(ProtoflowError, ImportError):
    """A generated module asks for a newer runtime than this one."""


class RegistrationError(ProtoflowError):
    """Handlers that contradict each other or cannot be registered.

    Attributes:
        problems: every mistake found, one sentence each.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class CapabilityError(ProtoflowError):
    """A demand of the contract or the config that the transport cannot meet.

    Attributes:
        problems: every demand that is not met, one sentence each.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class TransportError(ProtoflowError):
    """The broker failed, or the way to it; the driver's exception is chained."""


class ConnectionFailedError(TransportError):
    """No connection to the broker, or lost for longer than configured."""


class AuthenticationError(TransportError):
    """The broker refused the credentials, or the rights do not suffice."""


class TopologyError(TransportError):
    """A topic, queue or stream is missing, or differs from what is needed."""


class PublishError(TransportError):
    """A message was not taken by the broker; trying again may help."""


class PublishRefusedError(PublishError):
    """A message was refused for good: too large, malformed, not authorised."""


class DecodeError(ProtoflowError):
    """A payload that is no message of its type, or a message of no known type."""


class InvalidMessageError(ProtoflowError, ValueError):
    """A message to publish violates the rules of its contract; the text shows no value."""


class DeadLetterNotFoundError(ProtoflowError):
    """No dead letter of that id."""


class NotReplayableError(ProtoflowError):
    """A dead letter cannot be replayed: it names no origin, or one that it does not have."""


class ReplayError(ProtoflowError):
    """Some dead letters of a replay are left where they were.

    Attributes:
        replayed: how many were replayed.
        left: why the others were not, by message id; the first 1,000 of them.
        left_count: how many are left, as far as they were read.
    """

    def __init__(
        self,
        topic: str,
        replayed: int,
        left: Mapping[str, Exception],
        more: int = 0,
        stopped: Exception | None = None,
    ) -> None:
        self.replayed = replayed
        self.left = dict(left)
        self.left_count = len(left) + more
        shown = [f"{id:.100}: {error!s:.300}" for id, error in list(left.items())[:5]]
        if self.left_count > len(shown):
            shown.append(f"and {self.left_count - len(shown)} more")
        if stopped is not None:
            shown.append(f"the replay stopped, for {stopped!s:.300}")
        super().__init__(
            f"dead letters of {topic}: {replayed} replayed, {self.left_count} left: "
            + "; ".join(shown)
        )


class BatchFailed(ProtoflowError):  # noqa: N818  the name is part of the design
    """Raised by a batch handler: these messages failed, the others are done.

    Args:
        errors: the error of each failed message, by its index in the batch.
    """

    def __init__(self, errors: Mapping[int, BaseException]) -> None:
        self.errors = dict(errors)
        super().__init__(f"{len(self.errors)} of the batch failed")
