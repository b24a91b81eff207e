"""Credentials are read and checked before any data is sent."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from protoflow.config.url import TransportURL
from protoflow.error_codes import MISSING_EXTRA, TRANSPORT_OPTION
from protoflow.errors import ConfigError
from protoflow.transports.nats.options import ConnectionOptions


def credentials(url: TransportURL, options: ConnectionOptions) -> dict[str, Any]:
    """Returns the secret arguments for nats-py's `connect`. Raises ConfigError."""
    user, password = options.login(url)
    keys = options.nkey_seed or options.nkey_file or options.credentials_file
    if keys and importlib.util.find_spec("nkeys") is None:
        raise ConfigError(
            "transport: nats: NKeys and credentials files need: pip install nkeys",
            code=MISSING_EXTRA,
        )
    found: dict[str, Any] = {}
    if options.token:
        found["token"] = options.token.reveal()
    elif user and not password:
        found["token"] = user  # the form nats://token@host, as usual with NATS
    elif user and password:
        found |= {"user": user, "password": password.reveal()}
    if options.credentials_file:
        if "BEGIN NATS USER JWT" not in _readable("credentials_file", options.credentials_file):
            raise ConfigError(
                f"transport: nats: option credentials_file: {options.credentials_file} holds no"
                " NATS USER JWT; make it with nsc generate creds",
                code=TRANSPORT_OPTION,
            )
        found["user_credentials"] = options.credentials_file
    if options.nkey_file:
        _check_seed("nkey_file", _readable("nkey_file", options.nkey_file))
        found["nkeys_seed"] = options.nkey_file
    if options.nkey_seed:
        _check_seed("nkey_seed", options.nkey_seed.reveal())
        found["nkeys_seed_str"] = options.nkey_seed.reveal()
    return found


def _readable(option: str, path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no text file"
        raise ConfigError(
            f"transport: nats: option {option}: {path}: {why}", code=TRANSPORT_OPTION
        ) from error


def _check_seed(option: str, seed: str) -> None:
    import nkeys

    try:
        nkeys.from_seed(seed.strip().encode()).wipe()
    except Exception:  # nkeys raises any exception of its parts, which may contain the seed
        raise ConfigError(
            f"transport: nats: option {option} holds no NKey seed; it begins with SU",
            code=TRANSPORT_OPTION,
        ) from None
