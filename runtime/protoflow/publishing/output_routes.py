"""The ways of outputs to several transports, for the handlers of one subscription."""

from __future__ import annotations

from collections.abc import Sequence

from protoflow.errors import PublishRefusedError
from protoflow.message import Message
from protoflow.publishing.submitter import Submitter, refusal
from protoflow.routing.transport import RoutedTransport
from protoflow.stats.handlers import SentMessages


class OutputRoutes:
    """Divides outputs by transport.

    Args:
        transport: the transports.
        own: the name of the transport from which the subscription consumes.
        sent: counts confirmed messages.

    Attributes:
        own: the name of the transport from which the subscription consumes.
        submitters: publish, by transport.
        parts: the transports.
    """

    def __init__(self, transport: RoutedTransport, own: str, sent: SentMessages) -> None:
        self.own = own
        self.submitters = {name: Submitter(part, sent) for name, part in transport.parts.items()}
        self.shares = transport.shares
        self._of_topic = transport.routes.of_topic
        self.parts = transport.parts

    def elsewhere(self, messages: Sequence[Message]) -> str | None:
        """Returns another transport to which an output goes; None if all stay on their own."""
        names = (self._of_topic(message.topic) for message in messages)
        return next((name for name in names if name != self.own), None)

    def refusal(self, messages: Sequence[Message]) -> PublishRefusedError | None:
        """Returns why outputs can never be published; None if they can."""
        for name, share in self.shares(messages).items():
            problem = refusal(share, self.parts[name].capabilities)
            if problem is not None:
                return problem
        return None
