"""Makes the AsyncAPI 3.1 document of a contract."""

from __future__ import annotations

import enum
import os.path
import re
from collections.abc import Mapping
from typing import Any

from protoflow.asyncapi.channels import Channels
from protoflow.asyncapi.comments import Comments
from protoflow.asyncapi.deployment import Deployment, undeployed
from protoflow.asyncapi.messages import Messages
from protoflow.asyncapi.operations import Operations
from protoflow.asyncapi.schemas import Schemas
from protoflow.contract.catalog import Catalog

VERSION = "3.1.0"
_PACKAGE_VERSION = re.compile(r"v[0-9]+[a-z0-9]*")


class Payload(enum.StrEnum):
    """The language in which payloads are described."""

    JSONSCHEMA = "jsonschema"
    PROTOBUF = "protobuf"


class Perspective(enum.StrEnum):
    """The side whose operations the document describes: the service, or its clients."""

    SERVICE = "service"
    CLIENT = "client"


def document(
    catalog: Catalog,
    deployment: Deployment | None = None,
    *,
    title: str = "",
    version: str = "",
    payload: Payload = Payload.JSONSCHEMA,
    perspective: Perspective = Perspective.SERVICE,
    comments: Comments | None = None,
) -> dict[str, Any]:
    """Returns the AsyncAPI document of a contract as plain data.

    Args:
        catalog: the contract.
        deployment: the facts about its deployment; None: only the .proto is known.
        title: the title; default: the package, or the file.
        version: the version; default: the version in the package's name, for example `v1`.
        payload: the language in which payloads are described.
        perspective: the side whose operations are described.
        comments: the comments of the .proto, by full name.
    """
    comments = comments or {}
    deployment = deployment or undeployed(catalog)
    schemas = Schemas(comments, _sensitive(catalog))
    channels = Channels(deployment)
    messages = Messages(deployment, schemas, comments, protobuf=payload is Payload.PROTOBUF)
    operations = Operations(
        catalog,
        deployment,
        channels,
        messages,
        comments,
        is_client=perspective is Perspective.CLIENT,
    ).make()
    return {
        "asyncapi": VERSION,
        "info": _info(catalog, deployment, title, version),
        "defaultContentType": _content_type(messages),
        **_servers(deployment),
        "channels": channels.objects,
        "operations": operations,
        "components": _components(deployment, messages, schemas),
    }


def _info(catalog: Catalog, deployment: Deployment, title: str, version: str) -> dict[str, Any]:
    sources = [file.source for file in catalog.files]
    folder = os.path.commonpath([os.path.dirname(source) for source in sources] or [""])
    package = ".".join(part for part in folder.split("/") if part)
    found = [part for part in package.split(".") if _PACKAGE_VERSION.fullmatch(part)]
    info: dict[str, Any] = {
        "title": title or (sources[0] if len(sources) == 1 else package) or "protoflow",
        "version": version or (found[-1] if found else "0"),
        "x-protoflow-sources": sources,
    }
    if deployment.transport:
        info["x-protoflow-transport"] = deployment.transport
    return info


def _content_type(messages: Messages) -> str:
    """Returns the content type of most messages; of equally common ones, the first."""
    counts: dict[str, int] = {}
    for message in messages.objects.values():
        counts[message["contentType"]] = counts.get(message["contentType"], 0) + 1
    return max(counts, key=lambda name: counts[name]) if counts else "application/protobuf"


def _servers(deployment: Deployment) -> dict[str, Any]:
    servers = deployment.bindings.servers()
    if not servers:
        return {}
    schemes = [
        {"$ref": f"#/components/securitySchemes/{name}"} for name in deployment.bindings.security()
    ]
    security = {"security": schemes} if schemes else {}
    return {"servers": {name: {**server, **security} for name, server in servers.items()}}


def _components(deployment: Deployment, messages: Messages, schemas: Schemas) -> dict[str, Any]:
    components: dict[str, Mapping[str, Any]] = {
        "messages": messages.objects,
        "messageTraits": messages.traits(),
        "schemas": dict(sorted(schemas.components.items())),
        "securitySchemes": deployment.bindings.security(),
    }
    return {name: dict(objects) for name, objects in components.items() if objects}


def _sensitive(catalog: Catalog) -> dict[str, set[str]]:
    """Returns the sensitive fields of all messages of the contract, by type."""
    found: dict[str, set[str]] = {}
    for spec in catalog.messages.values():
        for name, fields in spec.sensitive.items():
            found.setdefault(name, set()).update(fields)
    return found
