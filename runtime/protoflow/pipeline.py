"""The chain of middleware around a handler, and its compilation.

A middleware is `(next, spec) -> next`. It is called once for each handler at start. If it has
nothing to do for a handler, it returns `next` and costs nothing. One pass is one attempt.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from protoflow.context import Context
from protoflow.error_codes import MIDDLEWARE
from protoflow.errors import ConfigError
from protoflow.message import Delivery
from protoflow.outcomes import Outcome

if TYPE_CHECKING:
    from protoflow.clock import Clock
    from protoflow.config.settings import Config
    from protoflow.contract.policy import ResolvedDelivery
    from protoflow.contract.spec import MessageSpec, PublicationSpec
    from protoflow.journal.handler_journal import HandlerJournal
    from protoflow.stats.handlers import HandlerStats
    from protoflow.transport.interface import Capabilities

#: One pass through the rest of the chain.
Next: TypeAlias = Callable[[Delivery, Context], Awaitable[Outcome]]
#: Wraps the rest of the chain for one handler.
Middleware: TypeAlias = "Callable[[Next, HandlerSpec], Next]"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HandlerSpec:
    """The information about a handler that middleware gets at start.

    Attributes:
        name: the full name, `shop.v1.Orders.BillOrder`.
        topic: the consumed topic, with variables filled and the namespace.
        group: the consumer group, likewise.
        policy: the delivery policy, with a value for every field.
        message: the contract of the input; None for raw handlers.
        publication: the contract of the output, if any.
        dead_letter_topic: the topic of dead letters, with variables filled and the namespace.
        batched: whether the handler takes batches.
        decode: returns the decoded input of a run and decodes it only once; raises DecodeError.
        stats: the counters of this handler.
        config: the settings of the service.
        capabilities: the capabilities of the transport.
        clock: time and randomness.
        streams: whether the handler is a generator of outputs.
        checks: checks of each message of a batch; a check raises if the message must not be in the
            batch. Middleware appends checks at start.
        pause_for: pauses the subscription for a reason and turns readiness red; None ends this.
        journal: records the outcomes of messages, if there is a journal.
        transport: the name of the transport from which the handler consumes.
        source: the name at the broker of the existing place that it consumes; empty: its topic.
    """

    name: str
    topic: str
    group: str
    policy: ResolvedDelivery
    message: MessageSpec | None
    publication: PublicationSpec | None
    dead_letter_topic: str
    batched: bool
    decode: Callable[[Context], Any]
    stats: HandlerStats
    config: Config
    capabilities: Capabilities
    clock: Clock
    streams: bool = False
    checks: list[Callable[[Any], None]] = field(default_factory=list)
    pause_for: Callable[[str, bool], None] = lambda _reason, _paused: None
    journal: HandlerJournal | None = None
    transport: str = "default"
    source: str = ""


@dataclass(frozen=True, slots=True)
class Named:
    """A middleware and its name."""

    name: str
    middleware: Middleware


#: Without these middlewares, failures or dead letters would be lost.
_INDISPENSABLE = ("poison_queue",)


@dataclass(frozen=True, slots=True)
class Chain:
    """Middleware by name, outermost first. Immutable: every method returns a new chain."""

    links: tuple[Named, ...] = ()

    def __iter__(self) -> Iterator[Named]:
        return iter(self.links)

    @property
    def names(self) -> tuple[str, ...]:
        """The names, outermost first."""
        return tuple(link.name for link in self.links)

    def add(
        self,
        name: str,
        middleware: Middleware,
        *,
        before: str | None = None,
        after: str | None = None,
    ) -> Chain:
        """Adds a middleware outside of `before`, inside of `after`, or next to the handler.

        Raises:
            ConfigError: the name is taken, or `before` or `after` names no middleware.
        """
        if name in self.names:
            raise ConfigError(
                f"middleware {name}: already in the chain; replace it, or drop it", code=MIDDLEWARE
            )
        at = len(self.links)
        if before is not None:
            at = self._index(before)
        elif after is not None:
            at = self._index(after) + 1
        return Chain((*self.links[:at], Named(name, middleware), *self.links[at:]))

    def replace(self, name: str, middleware: Middleware) -> Chain:
        """Replaces the middleware with this name. Raises ConfigError."""
        at = self._index(name)
        changed = replace(self.links[at], middleware=middleware)
        return Chain((*self.links[:at], changed, *self.links[at + 1 :]))

    def drop(self, *names: str) -> Chain:
        """Drops middleware by name. Raises ConfigError for an unknown name."""
        for name in names:
            self._index(name)
        return Chain(tuple(link for link in self.links if link.name not in names))

    def check(self) -> None:
        """Raises ConfigError if the chain would lose dead letters."""
        names = self.names
        for name in _INDISPENSABLE:
            if name not in names:
                raise ConfigError(
                    f"middleware: the chain lacks {name}, so failed messages would be lost; "
                    "replace it instead of dropping it",
                    code=MIDDLEWARE,
                )
        if "retry" in names and names.index("retry") < names.index("poison_queue"):
            raise ConfigError(
                "middleware: retry is outside of poison_queue, so exhausted messages would never "
                "reach the dead letters; put it inside",
                code=MIDDLEWARE,
            )

    def compile(self, terminal: Next, spec: HandlerSpec) -> Next:
        """Returns the whole chain around the handler as one callable."""
        next = terminal
        for link in reversed(self.links):
            next = link.middleware(next, spec)
        return next

    def _index(self, name: str) -> int:
        for index, link in enumerate(self.links):
            if link.name == name:
                return index
        known = ", ".join(self.names)
        raise ConfigError(f"middleware {name}: not in the chain, which is {known}", code=MIDDLEWARE)


def chain_of(given: Chain | Sequence[Middleware] | None, default: Iterable[Named]) -> Chain:
    """Returns the chain of a service; a sequence is added to the default chain, innermost."""
    if isinstance(given, Chain):
        return given
    chain = Chain(tuple(default))
    for middleware in given or ():
        name = getattr(middleware, "__name__", type(middleware).__name__)
        chain = chain.add(name, middleware)
    return chain
