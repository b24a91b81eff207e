"""The options of `sqs://`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from protoflow.config.secret import Secret
from protoflow.errors import ConfigError

_PREFIX = re.compile(r"[A-Za-z0-9]{1,24}")
_KIBIBYTE: Final = 1024
#: The largest message of SQS, and of SNS topics that allow it, in bytes.
_LARGEST: Final = 1024 * _KIBIBYTE
#: The largest message of an SNS topic, unless its `MaximumMessageSize` allows more.
USUAL_BYTES: Final = 256 * _KIBIBYTE


@dataclass(frozen=True, slots=True, kw_only=True)
class SqsOptions:
    """The options of `sqs://`; times are seconds.

    Attributes:
        prefix: the prefix of all topics and queues.
        fifo: `off`: standard topics and queues, without order; `key`: FIFO, in order per key;
            `topic`: FIFO, all messages of a topic in order.
        fair: whether the key is the message group id on standard topics, too, for fair queues.
        region: the AWS region, unless the URL names it; otherwise that of the environment.
        endpoint: the URL of another server than AWS's, for all services.
        profile: the profile in AWS's configuration files.
        role: the ARN of a role to assume.
        session_token: the session token of temporary credentials in the URL.
        tls_ca_file: a PEM file with the trusted authorities; None means those of botocore.
        tls_verify: verify the server's certificate; turn it off for experiments only.
        wait_time: seconds for which an empty queue is asked, from 1 to 20; a shutdown may take as
            long.
        parallel_sends: requests on their way to each topic at once; above 1, messages may overtake
            one another.
        request_timeout: seconds that a request may take.
        max_message_bytes: the largest body and attributes of a message in a topic, in bytes; above
            262144, topics are created with a larger `MaximumMessageSize`.
        max_queue_message_bytes: the same limit for retries and dead letters, in bytes.
        retention: seconds for which queues keep messages.
        scan_limit: the most dead letters that one look at them reads.
    """

    prefix: str = "protoflow"
    fifo: str = "off"
    fair: bool = False
    region: str | None = None
    endpoint: str | None = None
    profile: str | None = None
    role: str | None = None
    session_token: Secret | None = None
    tls_ca_file: str | None = None
    tls_verify: bool = True
    wait_time: int = 5
    parallel_sends: int = 1
    request_timeout: float = 10.0
    max_message_bytes: int = USUAL_BYTES
    max_queue_message_bytes: int = _LARGEST
    retention: int = 14 * 24 * 3600
    scan_limit: int = 10_000

    def __post_init__(self) -> None:
        problems: list[str] = []
        if not _PREFIX.fullmatch(self.prefix):
            problems.append("option prefix must be 1 to 24 of A-Z a-z 0-9")
        if self.fifo not in ("off", "key", "topic"):
            problems.append("option fifo must be off, key or topic")
        if self.fifo == "topic" and self.parallel_sends > 1:
            problems.append("option parallel_sends must be 1 if fifo is topic")
        if not 1 <= self.wait_time <= 20:
            problems.append("option wait_time must be from 1 to 20, SQS's bound")
        if self.request_timeout <= 0 or self.parallel_sends < 1 or self.scan_limit < 1:
            problems.append(
                "options request_timeout, parallel_sends and scan_limit must be above 0"
            )
        problems += [
            f"option {name} must be from 1024 to 1048576, AWS's bounds"
            for name in ("max_message_bytes", "max_queue_message_bytes")
            if not _KIBIBYTE <= getattr(self, name) <= _LARGEST
        ]
        if not 60 <= self.retention <= 14 * 24 * 3600:
            problems.append("option retention must be from 60 to 1209600, SQS's bounds")
        if problems:
            raise ConfigError(problems)

    @property
    def is_fifo(self) -> bool:
        """Whether topics and queues are FIFO."""
        return self.fifo != "off"
