"""Checks the settings of the HTTP pages."""

from __future__ import annotations

from collections.abc import Sequence

from protoflow.config.secret import Secret


def http_mistakes(
    token: Secret | None, read_token: Secret | None, cors: Sequence[str], proxies: Sequence[str]
) -> list[str]:
    """Returns every mistake in the tokens, in `http_cors` and in `http_proxies`."""
    mistakes: list[str] = []
    for name, secret in (("http_token", token), ("http_read_token", read_token)):
        text = secret.reveal() if secret else ""
        if text != text.strip() or not text.isprintable():
            mistakes.append(
                f"{name}: has blanks or line breaks, which a request cannot send; remove them"
            )
    if read_token and token == read_token:
        mistakes.append(
            "http_read_token: is the same as http_token, so readers could also operate; choose "
            "two different tokens"
        )
    if "*" in cors and not (token or read_token):
        mistakes.append(
            "http_cors: with '*', any page in a browser on this machine may purge dead letters; "
            "set http_token, or name the origins"
        )
    return mistakes + [
        f"http_proxies: {one!r:.100} is not an address or a network such as 10.0.0.0/8"
        for one in proxies
        if not _is_network(one)
    ]


def _is_network(text: str) -> bool:
    import ipaddress  # put off: few services are behind a proxy

    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True
