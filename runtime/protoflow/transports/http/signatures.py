"""Signatures of Standard Webhooks: https://github.com/standard-webhooks/standard-webhooks."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Final

from protoflow.config.secret import Secret

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"
_PREFIX: Final = "whsec_"
_VERSION: Final = "v1,"
#: The most signatures that are compared; senders have one for each secret during a rotation.
_MOST: Final = 16


class Signer:
    """The key of one secret. Raises ValueError if the secret is not base64."""

    def __init__(self, secret: Secret) -> None:
        text = secret.reveal().removeprefix(_PREFIX)
        try:
            self._key = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            self._key = b""
        if not self._key:
            raise ValueError("is not base64, with or without the prefix whsec_")

    def sign(self, id: str, timestamp: int | str, body: bytes) -> str:
        """Returns the signature of a body, with its version."""
        content = b"%s.%s." % (id.encode("utf-8", "surrogateescape"), str(timestamp).encode())
        digest = hmac.digest(self._key, content + body, hashlib.sha256)
        return _VERSION + base64.b64encode(digest).decode()


def signature_headers(
    signers: Sequence[Signer], id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """Returns the headers that sign a body, with one signature for each secret."""
    signatures = " ".join(signer.sign(id, timestamp, body) for signer in signers)
    return {ID: id, TIMESTAMP: str(timestamp), SIGNATURE: signatures}


def signature_problem(
    signers: Sequence[Signer], headers: Mapping[str, str], body: bytes, now: float, tolerance: float
) -> str | None:
    """Returns why a request is not signed by one of the secrets, at about this time; None if it is.

    Args:
        signers: the accepted secrets.
        headers: the headers of the request, by lower-case name.
        body: the body as received.
        now: seconds since the epoch.
        tolerance: the most seconds by which the time of the signature may differ.
    """
    missing = [name for name in (ID, TIMESTAMP, SIGNATURE) if not headers.get(name)]
    if missing:
        return f"the request has no {', '.join(missing)}"
    timestamp = headers[TIMESTAMP]
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
        return f"{TIMESTAMP} is not a number of seconds"
    if abs(now - int(timestamp)) > tolerance:
        return f"{TIMESTAMP} differs by more than {tolerance:g} s from the time here"
    given = [
        one.encode("utf-8", "surrogateescape")
        for one in headers[SIGNATURE].split(" ", _MOST)[:_MOST]
    ]
    # Everything is compared, also after a match, so that the time shows nothing.
    wanted = [signer.sign(headers[ID], timestamp, body).encode() for signer in signers]
    matched = [hmac.compare_digest(mine, one) for mine in wanted for one in given]
    return None if any(matched) else "no signature is that of a secret of this endpoint"
