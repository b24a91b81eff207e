"""Signatures are those of Standard Webhooks; its package is the oracle."""

from __future__ import annotations

import base64
import hmac
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protoflow.config.secret import Secret
from protoflow.transports.http.signatures import (
    ID,
    SIGNATURE,
    TIMESTAMP,
    Signer,
    signature_headers,
    signature_problem,
)
from standardwebhooks import Webhook

NOW = 1_790_000_000
keys = st.binary(min_size=1, max_size=64).map(lambda key: base64.b64encode(key).decode())
ids = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


@given(key=keys, prefix=st.sampled_from(["", "whsec_"]), id=ids, body=st.text(max_size=200))
def test_what_is_signed_here_is_what_the_package_signs(
    key: str, prefix: str, id: str, body: str
) -> None:
    headers = signature_headers([Signer(Secret(prefix + key))], id, NOW, body.encode())
    oracle = Webhook(key).sign(id, datetime.fromtimestamp(NOW, UTC), body)
    assert headers == {ID: id, TIMESTAMP: str(NOW), SIGNATURE: oracle}


@given(key=keys, other=keys, id=ids, body=st.binary(max_size=200), flip=st.integers(0, 10_000))
def test_one_changed_bit_is_noticed(key: str, other: str, id: str, body: bytes, flip: int) -> None:
    signers = [Signer(Secret(key))]
    headers = signature_headers(signers, id, NOW, body)

    def problem(**changes: object) -> str | None:
        fields = {"signers": signers, "headers": headers, "body": body} | changes
        return signature_problem(**fields, now=float(NOW), tolerance=300.0)  # type: ignore[arg-type]

    assert problem() is None
    assert problem(body=body + b" ")
    assert problem(headers={**headers, ID: f"{id}x"})
    assert problem(headers={**headers, TIMESTAMP: str(NOW + 1)})
    signature = bytearray(base64.b64decode(headers[SIGNATURE][3:]))
    signature[flip // 8 % len(signature)] ^= 1 << flip % 8
    changed = "v1," + base64.b64encode(signature).decode()
    assert problem(headers={**headers, SIGNATURE: changed})
    if base64.b64decode(other) != base64.b64decode(key):
        assert problem(signers=[Signer(Secret(other))])
    assert problem(signers=[Signer(Secret(other)), *signers]) is None


@given(headers=st.dictionaries(st.sampled_from([ID, TIMESTAMP, SIGNATURE]), st.text(max_size=60)))
def test_no_headers_of_a_stranger_pass_or_raise(headers: dict[str, str]) -> None:
    signers = [Signer(Secret("AAAA"))]
    assert signature_problem(signers, headers, b"x", float(NOW), 300.0) is not None


def test_several_secrets_sign_while_they_are_rotated() -> None:
    old, new = (Signer(Secret(base64.b64encode(key).decode())) for key in (b"old", b"new"))
    headers = signature_headers([old, new], "m", NOW, b"x")
    assert len(headers[SIGNATURE].split(" ")) == 2
    for signer in (old, new):
        assert signature_problem([signer], headers, b"x", float(NOW), 300.0) is None


@pytest.mark.parametrize(("age", "passes"), [(0, True), (300, True), (301, False), (-301, False)])
def test_the_time_of_a_signature_is_about_now(age: int, passes: bool) -> None:
    signers = [Signer(Secret("AAAA"))]
    headers = signature_headers(signers, "m", NOW - age, b"x")
    problem = signature_problem(signers, headers, b"x", float(NOW), 300.0)
    assert (problem is None) is passes


@pytest.mark.parametrize("secret", ["", "whsec_", "not base64!", "whsec_ü"])
def test_a_secret_that_is_not_base64_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="base64"):
        Signer(Secret(secret))


def test_a_body_is_hashed_once_for_each_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anyone can send many signatures with a large body."""
    hashed: list[object] = []

    def digest(*given: object) -> bytes:
        hashed.append(given)
        return bytes(32)

    monkeypatch.setattr(hmac, "digest", digest)
    signers = [Signer(Secret("AAAA")), Signer(Secret("BBBB"))]
    headers = {ID: "m", TIMESTAMP: str(NOW), SIGNATURE: " ".join(["v1,x"] * 16)}
    assert signature_problem(signers, headers, b"x", float(NOW), 300.0)
    assert len(hashed) == 2
