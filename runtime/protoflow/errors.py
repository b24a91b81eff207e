"""Every exception that Protoflow raises, in one tree.

    ProtoflowError
    ├── ConfigError            invalid settings or options; lists all mistakes
    ├── MissingExtraError      an optional dependency is not installed (an ImportError too)
    ├── GencodeError           a generated module is newer than this runtime (an ImportError too)
    ├── RegistrationError      handlers contradict each other or cannot be registered
    ├── CapabilityError        the transport cannot meet a demand
    ├── TransportError         the broker or the connection failed
    │   ├── ConnectionFailedError   no connection for longer than configured
    │   ├── AuthenticationError     the broker refused the credentials, or a right is missing
    │   ├── TopologyError           a topic, queue or stream is missing or differs
    │   └── PublishError            the broker did not store a message
    │       └── PublishRefusedError     ... and never will: too large, not authorised
    ├── SchemaRegistryError    the schema registry cannot be reached, or refused a schema
    ├── DecodeError            a payload is not a message of its type
    ├── InvalidMessageError    a message violates the rules of its contract (a ValueError too)
    ├── DeadLetterNotFoundError
    ├── NotReplayableError     a dead letter cannot be replayed; the text says why
    ├── ReplayError            some dead letters were not replayed, with reasons
    └── BatchFailed            raised by batch handlers to name the failed messages

Each text ends with a code, `[PF305]`: docs/errors.md and `protoflow explain PF305` have the cause
and the fix.

An `Outcome` (see `protoflow.outcomes`) is no ProtoflowError: it is a handler's decision.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping

from protoflow import error_codes
from protoflow.error_codes import coded


class ProtoflowError(Exception):
    """The root of all errors of Protoflow.

    Attributes:
        code: the kind of error; its text ends with it.
    """

    code: str = ""

    def __init__(self, *args: object, code: str | None = None) -> None:
        super().__init__(*args)
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return coded(super().__str__(), self.code)


class _ProblemsError(ProtoflowError):
    """An error that reports several mistakes."""

    def __init__(self, problems: str | Iterable[str], *, code: str | None = None) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems), code=code)

    def __str__(self) -> str:
        return "\n".join(coded(problem, self.code) for problem in self.problems)


class ConfigError(_ProblemsError):
    """Settings or options are invalid.

    Attributes:
        problems: every mistake found, one sentence each.
    """

    code = error_codes.SETTING


class MissingExtraError(ProtoflowError, ImportError):
    """An optional dependency is missing; the text names the command that installs it."""

    code = error_codes.MISSING_EXTRA

    def __init__(self, extra: str, module: str) -> None:
        self.extra = extra
        super().__init__(
            f"{module} is not installed; run: pip install 'protoc-gen-protoflow[{extra}]'"
        )


class GencodeError(ProtoflowError, ImportError):
    """A generated module needs a newer runtime than this one."""

    code = error_codes.GENCODE


class RegistrationError(_ProblemsError):
    """Handlers contradict each other or cannot be registered.

    Attributes:
        problems: every mistake found, one sentence each.
    """

    code = error_codes.HANDLER_CONFLICT


class CapabilityError(_ProblemsError):
    """The transport cannot meet a demand of the contract or the config.

    Attributes:
        problems: every unmet demand, one sentence each.
    """

    code = error_codes.CAPABILITY


class TransportError(ProtoflowError):
    """The broker or the connection failed; the client library's exception is chained."""

    code = error_codes.BROKER


class ConnectionFailedError(TransportError):
    """The broker could not be reached within the configured time."""

    code = error_codes.UNREACHABLE


class AuthenticationError(TransportError):
    """The broker refused the credentials, or the user lacks a right."""

    code = error_codes.REFUSED_LOGIN


class TopologyError(TransportError):
    """A topic, queue or stream is missing or has other settings."""

    code = error_codes.TOPOLOGY


class PublishError(TransportError):
    """The broker did not store a message; publishing it again may help."""

    code = error_codes.NOT_STORED


class PublishRefusedError(PublishError):
    """The broker refused a message permanently: too large, malformed or not authorised."""

    code = error_codes.REFUSED


class SchemaRegistryError(ProtoflowError):
    """The schema registry cannot be reached, or refused a schema.

    Attributes:
        temporary: whether the same request may succeed later: the registry could not be reached,
            or was overloaded.
    """

    code = error_codes.SCHEMA_REGISTRY

    def __init__(self, problem: str, *, temporary: bool = False) -> None:
        self.temporary = temporary
        super().__init__(problem)


class DecodeError(ProtoflowError):
    """A payload cannot be decoded as its type, or the type is unknown."""

    code = error_codes.UNDECODABLE


class InvalidMessageError(ProtoflowError, ValueError):
    """A message to publish violates the rules of its contract; the text shows no value."""

    code = error_codes.INVALID_MESSAGE


class DeadLetterNotFoundError(ProtoflowError):
    """No dead letter has this id."""

    code = error_codes.NO_DEAD_LETTER


class NotReplayableError(ProtoflowError):
    """A dead letter cannot be replayed: its origin is missing or wrong."""

    code = error_codes.NOT_REPLAYABLE


class ReplayError(ProtoflowError):
    """A replay left some dead letters in their topic.

    Attributes:
        replayed: the number of replayed dead letters.
        left: the reasons why dead letters stayed, by message id; the first 1,000.
        left_count: the number of selected dead letters that stayed.
    """

    code = error_codes.NOT_ALL_REPLAYED

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

    def __str__(self) -> str:
        # its own code, after those of the reasons
        return f"{Exception.__str__(self)} [{self.code}]"


class BatchFailed(ProtoflowError):  # noqa: N818  the name is part of the design
    """Raised by a batch handler to name the failed messages; the other messages succeeded.

    Args:
        errors: the error of each failed message, by its index in the batch.
    """

    code = error_codes.BATCH

    def __init__(self, errors: Mapping[int, BaseException]) -> None:
        self.errors = dict(errors)
        super().__init__(f"{len(self.errors)} of the batch failed")


class Unprepared(Exception):  # noqa: N818  the name states what happened
    """An output cannot be encoded yet; after `prepare` the same call succeeds.

    It is raised on the event loop, and encoding has changed nothing.

    Args:
        prepare: what is awaited first. It raises ProtoflowError.
    """

    def __init__(self, prepare: Callable[[], Awaitable[None]]) -> None:
        import asyncio  # imported here, because modules of handlers load this one

        super().__init__("the output is not prepared; this error is for the runtime")
        self.prepare = prepare
        self._loop = asyncio.get_running_loop()

    def prepare_from_thread(self) -> None:
        """Prepares on the event loop, and waits for that in another thread."""
        import asyncio

        async def on_loop() -> None:
            await self.prepare()

        asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result()
