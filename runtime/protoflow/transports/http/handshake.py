"""The permission that senders of CloudEvents ask for, so that nobody is flooded unasked.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/http-webhook.md#4-abuse-protection
"""

from __future__ import annotations

from collections.abc import Mapping

from protoflow.transports.http.options import HttpOptions
from protoflow.transports.http.requests import Answer


def permission(headers: Mapping[str, str], options: HttpOptions) -> Answer:
    """Returns the answer to `OPTIONS`.

    `WebHook-Request-Callback` is ignored: anyone can send it, and could make this server call any
    URL. So permission is given at once or not at all.
    """
    found = {"Allow": "POST, OPTIONS"}
    origin = headers.get("webhook-request-origin", "").strip()
    if origin and {"*", origin} & {*options.allowed_origins}:
        found["WebHook-Allowed-Origin"] = origin
        found["WebHook-Allowed-Rate"] = str(options.allowed_rate or "*")
    return Answer(204, headers=found)
