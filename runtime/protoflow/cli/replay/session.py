"""One run of `protoflow replay`: connect, run the versions of the handler, report."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, cast

import click

from protoflow.cli import looking, plan
from protoflow.cli.exits import ExitCode
from protoflow.cli.replay import versions
from protoflow.cli.replay.report import Report
from protoflow.cli.replay.rest import Rest
from protoflow.cli.replay.versions import Version
from protoflow.clock import Clock
from protoflow.connection import transport_for
from protoflow.contract.spec import Start
from protoflow.error_codes import NOT_SHOWN
from protoflow.errors import CapabilityError
from protoflow.routing.transport import learn, read_from
from protoflow.scheduling.scheduler import Scheduler
from protoflow.service import Service
from protoflow.service.signals import handled_signals
from protoflow.stats.dead_letters import timestamp
from protoflow.topic_replay import Comparison, Noise, Replay
from protoflow.topic_replay.feed import Feed
from protoflow.topic_replay.window import Window
from protoflow.transport import TopicReader, TopicRecord, Transport
from protoflow.transport.topic_reader import Point

#: The least number of messages in memory.
_LEAST: Final = 256
#: Seconds between two lines of progress.
_PROGRESS: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the command.

    Attributes:
        topic: the topic, as the user names it.
        targets: the services: one, or two to compare.
        handler: the handler; None: the only one of the topic.
        start, end: the part of the topic.
        number: the most messages; None: all.
        shadow: whether outputs are captured.
        masks: the fields that are not compared.
        reprocess: whether messages that an inbox has recorded are handled again.
        stops: whether the first failure ends the replay.
        concurrency: replaces that of the policy.
        without: middlewares to leave out.
        as_json: prints JSON.
        confirm: asks before something is published; takes the handler and the topic.
    """

    topic: str
    targets: list[str]
    handler: str | None
    start: Start | Point
    end: Point | None
    number: int | None
    shadow: bool
    masks: tuple[str, ...]
    reprocess: bool
    stops: bool
    concurrency: int | None
    without: tuple[str, ...]
    as_json: bool
    confirm: Callable[[str, str], None]


async def replay(found: Sequence[Service], options: Options) -> ExitCode:
    """Runs the command, and returns its exit code."""
    config = found[0].config
    catalog = versions.imported_contract()
    topic = plan.topic_named(options.topic, catalog, config)
    _versions(found, options, topic, transport_for(config, Clock()))  # mistakes need no broker
    async with looking.connection(config) as connection:
        made = _versions(found, options, topic, connection.transport)
        reader = _reader(read_from(connection.transport, topic), topic)
        if not options.shadow:
            options.confirm(made[0].handler, topic)
        comparison = Comparison(catalog.message, Noise(options.masks)) if len(made) > 1 else None
        report = Report(
            made, catalog, comparison, Rest(options.start),
            shadow=options.shadow, as_json=options.as_json,
        )  # fmt: skip
        session = _Session(made, report, options, connection.transport)
        records = reader.read_topic(topic, start=options.start, end=options.end)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                await session.run(cast("AsyncGenerator[TopicRecord, None]", records))
        except BaseException:
            if session.read:  # the report says where to continue
                report.finish(interrupted=session.interrupted, all_read=session.all_read)
            raise
    report.finish(interrupted=session.interrupted, all_read=session.all_read)
    return report.exit_code(interrupted=session.interrupted)


class _Session:
    def __init__(
        self, made: Sequence[Version], report: Report, options: Options, broker: Transport
    ) -> None:
        self._versions = made
        self._options = options
        self._broker = broker
        limit = max(_LEAST, *(each.plan.settings.max_in_flight for each in made))
        self._window = Window(len(made), limit, report.add)
        portions = [each.portion for each in made if each.portion is not None]
        portion = min(portions) if portions and len(made) > 1 else None
        reprocess = options.reprocess and not options.shadow
        for index, each in enumerate(made):
            group = each.plan.settings.group if reprocess else ""
            each.transport.feed = Feed(index, self._window.settle, self._failed, portion, group)
        self._replay = Replay([each.transport.feed for each in made], self._window)
        self._schedulers: list[Scheduler] = []
        self._signals = 0

    @property
    def read(self) -> int:
        """The number of messages that were read."""
        return self._replay.read

    @property
    def all_read(self) -> bool:
        """Whether every message was read that the options select."""
        return self._replay.all_read

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended the replay."""
        return self._signals > 0

    async def run(self, records: AsyncGenerator[TopicRecord, None]) -> None:
        """Runs until all is handled. Raises TransportError if the topic cannot be read."""
        with handled_signals(self._signalled):
            async with AsyncExitStack() as stack:
                stack.callback(self._window.close)
                for each in self._versions:
                    running = each.single.running(
                        each.plan, each.chain, self._replay.stop,
                        broker=each.transport if self._options.shadow else self._broker,
                        rehearsal=self._options.shadow,
                    )  # fmt: skip
                    self._schedulers.append(await stack.enter_async_context(running))
                async with _progress(self._replay):
                    await self._replay.run(records, self._options.number)

    def _failed(self) -> None:
        if self._options.stops:
            self._stop()

    def _stop(self) -> None:
        """Starts nothing more; running handlers continue."""
        for scheduler in self._schedulers:
            scheduler.pause()
        self._replay.stop()

    def _signalled(self, _signal: signal.Signals) -> None:
        """The first signal lets running handlers finish, the second cancels them."""
        self._signals += 1
        self._stop()
        if self._signals > 1:
            for scheduler in self._schedulers:
                scheduler.cancel_runs()


def _versions(
    found: Sequence[Service], options: Options, topic: str, broker: Transport
) -> list[Version]:
    """Returns the versions. Raises ConfigError, and CapabilityError if nothing can be read."""
    choose = versions.named(options.handler, topic)
    made: list[Version] = []
    for service, target in zip(found, options.targets, strict=True):
        made.append(
            versions.version_of(
                service, target, choose, topic, broker, shadow=options.shadow,
                concurrency=options.concurrency, without=options.without,
            )
        )  # fmt: skip
        choose = versions.like(made[0])
    learn(broker, [each.plan.settings for each in made])
    if not read_from(broker, topic).capabilities.reads_topics:
        raise _no_log(topic)
    return made


def _no_log(topic: str) -> CapabilityError:
    return CapabilityError(
        f"the transport of {topic} keeps no log of its messages, so they cannot be replayed; "
        "Kafka, JetStream, PostgreSQL and files keep one",
        code=NOT_SHOWN,
    )


def _reader(transport: Transport, topic: str) -> TopicReader:
    if not isinstance(transport, TopicReader):
        raise _no_log(topic)
    if not transport.capabilities.keeps_settled:
        click.echo(
            f"the transport of {topic} deletes a message when every group has settled it: only "
            "messages that a group has not settled are replayed",
            err=True,
        )
    return transport


@asynccontextmanager
async def _progress(replay: Replay) -> AsyncIterator[None]:
    """Shows how far the replay is, on a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    task = asyncio.ensure_future(_show(replay))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        click.echo("\r\x1b[K", nl=False, err=True)


async def _show(replay: Replay) -> None:
    began = asyncio.get_running_loop().time()
    while True:
        await asyncio.sleep(_PROGRESS)
        rate = replay.read / (asyncio.get_running_loop().time() - began)
        where = f"{replay.position}, {timestamp(replay.time) or '-'}"
        click.echo(
            f"\r\x1b[K{replay.read:,} messages, {rate:,.0f}/s, at {where}", nl=False, err=True
        )
