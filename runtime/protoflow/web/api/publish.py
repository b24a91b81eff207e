"""Publishing from the dashboard, if the settings allow it."""

from __future__ import annotations

from google.protobuf import json_format

from protoflow.contract.spec import PublicationSpec
from protoflow.errors import InvalidMessageError, PublishRefusedError
from protoflow.output import Output
from protoflow.web.api.operators import as_operator
from protoflow.web.host import Host
from protoflow.web.request import Request
from protoflow.web.response import Problem, Response, as_json


async def publish(host: Host, request: Request) -> Response:
    """Publishes a message of the contract, given as JSON; returns its id."""
    request.given(frozenset())
    if not host.config.http_publish:
        raise Problem(403, "pages do not publish; set http_publish to let them")
    body = await request.json(frozenset({"type", "message", "key"}))
    type, key = body.get("type"), body.get("key")
    spec = host.messages().get(type) if isinstance(type, str) else None
    if spec is None:
        known = ", ".join(sorted(host.messages())) or "none"
        raise Problem(400, f"type is one of the contract: {known}")
    if not spec.topic:
        raise Problem(400, f"{spec.type} has no topic in the contract")
    if not (key is None or isinstance(key, str)):
        raise Problem(400, "key is a text")
    message = spec.message_class()
    try:
        json_format.ParseDict(body.get("message", {}), message)
    except (json_format.ParseError, RecursionError, TypeError, ValueError) as error:
        raise Problem(400, f"message is not a {spec.type}: {error!s:.500}") from None
    publication = PublicationSpec(topic=spec.topic, message=spec)
    try:
        (id,) = await host.publish(publication, (Output(message, key=key),))
    except (InvalidMessageError, PublishRefusedError) as error:
        raise Problem(400, str(error)) from None
    if host.journal is not None:
        with as_operator(request, f"message {id}"):
            host.journal.record_action("publish", spec.topic, count=1)
    return as_json({"id": id}, 201)
