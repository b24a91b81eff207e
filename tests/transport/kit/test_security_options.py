"""TLS and credentials: the same options on every transport, each with an effect."""

from __future__ import annotations

import asyncio
import importlib
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from protoflow import transports
from protoflow.config.secret import Secret
from protoflow.config.url import TransportURL
from protoflow.errors import ConfigError
from protoflow.transport import TransportSettings
from protoflow.transport.kit.security_options import CredentialOptions, TlsOptions
from protoflow.transports.built_in import BUILT_IN, BuiltInTransport

#: HTTP has many servers, without users; AWS has neither schemes nor certificates of clients.
_OTHERS = ("http", "sqs")
SECURED = [record for record in BUILT_IN if record.extra and record.name not in _OTHERS]
each = pytest.mark.parametrize("record", SECURED, ids=lambda record: record.name)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of a server that is called `broker`, and of a client."""
    directory = tmp_path_factory.mktemp("certificates")
    for name, key in (("server", ["-nodes"]), ("client", ["-passout", "pass:opensesame"])):
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "1", *key]
        command += ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:broker"]
        command += ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
        subprocess.run(command, check=True, capture_output=True, cwd=directory)
    return directory


@asynccontextmanager
async def server(certificates: Path, *, asks: bool = False) -> AsyncIterator[int]:
    """A TLS server on loopback; its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    if asks:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates / "client.pem")

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    listening = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


async def greeting(port: int, host: str = "127.0.0.1", **options: Any) -> bytes:
    """What a client with these options hears."""
    context = TlsOptions(**options).tls_context("kafka", "kafka+ssl", encrypted=True)
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_the_authority_is_the_file_and_the_name_the_host_or_what_is_set(
    certificates: Path,
) -> None:
    trusted = {"tls_ca_file": str(certificates / "server.pem")}
    async with server(certificates) as port:
        assert await greeting(port, tls_server_name="broker", **trusted) == b"hello"
        assert await greeting(port, tls_verify_hostname=False, **trusted) == b"hello"
        assert await greeting(port, tls_verify=False) == b"hello"
        for refused in (trusted, {"tls_server_name": "broker"}, {"tls_verify_hostname": False}):
            with pytest.raises(ssl.SSLCertVerificationError):
                await greeting(port, **refused)


async def test_a_client_shows_its_certificate(certificates: Path) -> None:
    known = {
        "tls_ca_file": str(certificates / "server.pem"),
        "tls_server_name": "broker",
        "tls_cert_file": str(certificates / "client.pem"),
        "tls_key_file": str(certificates / "client.key"),
    }
    async with server(certificates, asks=True) as port:
        password = Secret("opensesame")
        assert await greeting(port, tls_key_password=password, **known) == b"hello"
        for wrong in (None, Secret("hunter2")):
            with pytest.raises(ConfigError, match="tls_key_file") as caught:
                await greeting(port, tls_key_password=wrong, **known)
            assert "hunter2" not in str(caught.value)


def test_a_file_that_cannot_be_loaded_is_named() -> None:
    options = TlsOptions(tls_ca_file="/nowhere/ca.pem")
    with pytest.raises(ConfigError, match=r"/nowhere/ca.pem cannot be loaded: No such"):
        options.tls_context("kafka", "kafka+ssl", encrypted=True)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"tls_key_file": "k"}, "option tls_key_file needs tls_cert_file"),
        ({"tls_key_password": Secret("p")}, "option tls_key_password needs tls_cert_file"),
        (
            {"tls_server_name": "n", "tls_verify": False},
            "option tls_server_name needs tls_verify and tls_verify_hostname",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    options: dict[str, Any], problem: str
) -> None:
    assert list(TlsOptions(**options).tls_problems()) == [problem]


def test_the_user_of_the_url_goes_before_that_of_the_options() -> None:
    options = CredentialOptions(username="config", password=Secret("c"))
    password = options.password
    assert options.login(TransportURL.parse("kafka://a")) == ("config", password)
    assert options.login(TransportURL.parse("kafka://url@a")) == ("url", password)
    user, found = options.login(TransportURL.parse("kafka://url:u@a"))
    assert user == "url"
    assert found is not None
    assert found.reveal() == "u"


@each
def test_every_transport_of_a_server_has_these_options(record: BuiltInTransport) -> None:
    module, _, name = record.options.partition(":")
    options = getattr(importlib.import_module(f"protoflow.transports.{module}"), name)
    assert issubclass(options, TlsOptions)
    assert issubclass(options, CredentialOptions)


@each
@pytest.mark.parametrize("option", ["tls_ca_file=/ca.pem", "tls_verify=no"])
def test_options_of_tls_need_a_url_that_encrypts(record: BuiltInTransport, option: str) -> None:
    plain, encrypted = record.schemes
    with pytest.raises(ConfigError) as caught:
        opening(f"{plain}://localhost?{option}")
    assert f"needs the scheme {encrypted}://" in str(caught.value)


@each
def test_a_file_of_tls_that_is_missing_is_named(record: BuiltInTransport) -> None:
    with pytest.raises(ConfigError, match="tls_ca_file: /nowhere"):
        opening(f"{record.schemes[1]}://localhost?tls_ca_file=/nowhere")


def opening(url: str) -> None:
    """Makes a transport and, where that reads no files, opens it."""
    made = transports.create(TransportSettings(url=TransportURL.parse(url), connect_timeout=1.0))
    asyncio.run(made.open())


@pytest.mark.parametrize(
    ("url", "before", "now"),
    [
        ("kafka+ssl", "ssl_ca_file", "tls_ca_file"),
        ("kafka+ssl", "ssl_check_hostname", "tls_verify_hostname"),
        ("amqps", "ca_file", "tls_ca_file"),
        ("amqps", "verify", "tls_verify"),
        ("nats+tls", "tls_ca", "tls_ca_file"),
        ("jetstream+tls", "tls_certificate", "tls_cert_file"),
        ("jetstream", "user", "username"),
        ("nats+tls", "tls_hostname", "tls_server_name"),
    ],
)
def test_an_earlier_name_of_an_option_is_refused_with_the_name_now(
    url: str, before: str, now: str
) -> None:
    with pytest.raises(ConfigError, match=f"option {before} was renamed to {now}"):
        opening(f"{url}://localhost?{before}=x")
