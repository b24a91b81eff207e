"""The connection to AWS: a client for each service, credentials, and errors."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.credentials import (
    AioAssumeRoleCredentialFetcher,
    AioDeferredRefreshableCredentials,
)
from aiobotocore.session import AioSession
from botocore import exceptions
from botocore.loaders import Loader, create_loader

from protoflow.error_codes import NOT_OPEN, TRANSPORT_OPTION
from protoflow.errors import (
    AuthenticationError,
    ConfigError,
    ConnectionFailedError,
    TopologyError,
    TransportError,
)
from protoflow.transport.interface import TransportSettings
from protoflow.transports.sqs.options import SqsOptions

#: An emulator has any region.
_EMULATOR_REGION: Final = "us-east-1"
#: The client sends a failing request at most this often. After that, its caller repeats it.
_ATTEMPTS: Final = 3
#: The most connections to a service. A request that waits for messages occupies one.
_CONNECTIONS: Final = 1000
#: The most entries of a request.
BATCH: Final = 10
#: Codes of missing queues and topics, in SQS's old and new protocol, and of SNS.
_MISSING: Final = frozenset(
    {
        "QueueDoesNotExist",
        "AWS.SimpleQueueService.NonExistentQueue",
        "NotFound",
        "NotFoundException",
    }
)
#: Codes of a right that the user lacks: repetition cannot help.
_DENIED: Final = frozenset(
    {"AccessDenied", "AccessDeniedException", "AuthorizationError", "AuthorizationErrorException"}
)
_UNKNOWN_USER: Final = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.TokenRetrievalError,
    exceptions.UnauthorizedSSOTokenError,
    exceptions.SSOTokenLoadError,
)
_UNKNOWN_USER_CODES: Final = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "SignatureDoesNotMatch",
     "UnrecognizedClientException", "RequestExpired", "InvalidSecurity", "IncompleteSignature",
     "InvalidAccessKeyId", "MissingAuthenticationToken", "OptInRequired"}
)  # fmt: skip
_NO_REGION: Final = (exceptions.NoRegionError, exceptions.InvalidRegionError)
#: Errors in the configuration of botocore, which no repetition ends.
_CONFIGURATION: Final = (*_NO_REGION, exceptions.ProfileNotFound, exceptions.ConfigParseError)
#: The descriptions of services, which are large, are read once a process.
_loader: list[Loader] = []


class AccessDeniedError(AuthenticationError):
    """The user is known, but lacks a right."""


class RefusedError(TransportError):
    """AWS refused a request for what is in it."""


class AwsConnection:
    """The clients that all parts of a transport share.

    Attributes:
        problem: what was wrong with the last call; None: it was answered.
        account: the account of the user, once open.
        partition: the partition of AWS that the account belongs to, once open.
        region: the region, once open.
    """

    def __init__(self, settings: TransportSettings, options: SqsOptions) -> None:
        self.settings = settings
        self.options = options
        self.problem: str | None = "the transport is not open"
        self.account, self.partition, self.region = "", "aws", ""
        self._endpoint, self._region = _place(settings, options)
        self._clients: dict[str, Any] = {}  # Any: botocore makes their classes
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        """Connects, and asks AWS who the user is."""
        try:
            async with asyncio.timeout(self.settings.connect_timeout):
                await self._open()
                await self._identify()
        except _CONFIGURATION as error:
            await self.close()
            fix = "correct AWS's configuration files or the option profile"
            if isinstance(error, _NO_REGION):
                fix = "name the region in the URL (sqs://eu-central-1) or in AWS_REGION"
            raise ConfigError(
                f"transport: sqs: {str(error).rstrip('.')}; {fix}", code=TRANSPORT_OPTION
            ) from error
        except TimeoutError as error:
            await self.close()
            raise ConnectionFailedError(
                f"{self._where} did not answer within {self.settings.connect_timeout:g} s"
            ) from error
        except (exceptions.BotoCoreError, exceptions.ClientError, OSError) as error:
            await self.close()
            raise self._translated(error) from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Disconnects. Idempotent."""
        self._clients = {}
        self.problem = "the transport is closed"
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()

    async def call(
        self, service: str, operation: str, *, longer: float = 0.0, **parameters: Any
    ) -> Mapping[str, Any]:
        """Sends a request, which may take `longer` seconds more than `request_timeout`."""
        client = self._clients.get(service)
        if client is None:
            raise ConnectionFailedError("the transport is not open", code=NOT_OPEN)
        try:
            async with asyncio.timeout(self.options.request_timeout + longer):
                answer: Mapping[str, Any] = await getattr(client, operation)(**parameters)
        except TimeoutError as error:
            limit = self.options.request_timeout + longer
            self.problem = f"{self._where}: {operation} was not answered within {limit:g} s"
            raise ConnectionFailedError(self.problem) from error
        except (exceptions.BotoCoreError, exceptions.ClientError, OSError) as error:
            translated = self._translated(error, operation)
            if not isinstance(translated, TopologyError | RefusedError):
                self.problem = str(translated)
            raise translated from error
        self.problem = None
        return answer

    async def check(self) -> None:
        """Clears `problem` if AWS answers again: an idle process sends nothing."""
        if self.problem is not None:
            await self._identify()

    def arn(self, service: str, name: str) -> str:
        """Returns the ARN of a topic or queue."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{name}"

    @property
    def _where(self) -> str:
        return self._endpoint or f"AWS in {self.region or self._region or 'the default region'}"

    async def _open(self) -> None:
        options, url = self.options, self.settings.url
        session = AioSession(profile=options.profile)
        if not _loader:
            _loader.append(create_loader(session.get_config_variable("data_path")))
        session.register_component("data_loader", _loader[0])
        common: dict[str, Any] = {"region_name": self._region, "endpoint_url": self._endpoint}
        common["verify"] = options.tls_ca_file if options.tls_verify else False
        if self._endpoint and not (self._region or session.get_config_variable("region")):
            common["region_name"] = _EMULATOR_REGION
        if url.user is not None and url.password is not None:
            token = options.session_token
            session.set_credentials(
                url.user, url.password.reveal(), token.reveal() if token else None
            )
        if options.role:
            await self._assume(session, options.role, common)
        common["config"] = AioConfig(
            connect_timeout=self.settings.connect_timeout,
            read_timeout=options.request_timeout + options.wait_time,
            max_pool_connections=_CONNECTIONS,
            retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
            user_agent_appid=self.settings.client_name[:50],
        )
        for service in ("sts", "sns", "sqs"):
            client = session.create_client(service, **common)
            self._clients[service] = await self._stack.enter_async_context(client)
        self.region = self._clients["sqs"].meta.region_name

    async def _assume(self, session: AioSession, role: str, common: Mapping[str, Any]) -> None:
        source = await session.get_credentials()
        if source is None:
            raise exceptions.NoCredentialsError
        fetcher = AioAssumeRoleCredentialFetcher(
            client_creator=partial(session.create_client, **common),
            source_credentials=source,
            role_arn=role,
        )
        session._credentials = AioDeferredRefreshableCredentials(
            method="assume-role", refresh_using=fetcher.fetch_credentials
        )

    async def _identify(self) -> None:
        caller = await self.call("sts", "get_caller_identity")
        self.account, self.partition = caller["Account"], caller["Arn"].split(":")[1]

    def _translated(self, error: Exception, operation: str = "connect") -> TransportError:
        text = f"{self._where}: {operation}: {error}"
        if isinstance(error, _UNKNOWN_USER):
            return AuthenticationError(text)
        if not isinstance(error, exceptions.ClientError):
            return ConnectionFailedError(text)
        return failure(error.response, text)


def failure(response: Mapping[str, Any], text: str) -> TransportError:
    """Returns the error for an answer of AWS."""
    code = str(response.get("Error", {}).get("Code", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    if code in _MISSING:
        return TopologyError(text)
    if code in _DENIED:
        return AccessDeniedError(text)
    if code in _UNKNOWN_USER_CODES:
        return AuthenticationError(text)
    if 400 <= status < 429 and "hrottl" not in code:
        return RefusedError(text)
    return TransportError(text)


def chunks(items: Sequence[Any]) -> Sequence[Sequence[Any]]:
    """Splits items into the batches of requests."""
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]


def _place(settings: TransportSettings, options: SqsOptions) -> tuple[str | None, str | None]:
    """The endpoint and the region that URL and options name."""
    hosts, endpoint, region = settings.url.hosts, options.endpoint, options.region
    problems = []
    if len(hosts) > 1 or settings.url.path.strip("/"):
        problems.append("transport: sqs: the URL names one region or one host: sqs://eu-central-1")
    if (settings.url.user is None) != (settings.url.password is None):
        problems.append("transport: sqs: write both the access key and its secret into the URL")
    for host, port in hosts[:1]:
        if port is None:
            region = region or host
        else:
            endpoint = endpoint or f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if problems:
        raise ConfigError(problems, code=TRANSPORT_OPTION)
    return endpoint, region
