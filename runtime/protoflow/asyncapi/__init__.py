"""AsyncAPI 3.1 documents of a contract.

`document` makes plain data of a `Catalog`; `to_yaml`, `to_json` and `to_html` write it.
Without a `Deployment`, the document describes the .proto files only; `protoflow.deployment` makes a
`Deployment` from the configuration of a service. This package depends on specs only, so that the
plugin can use it, too.
"""

from __future__ import annotations

from protoflow.asyncapi.bindings import Bindings
from protoflow.asyncapi.deployment import Consumer, Deployment
from protoflow.asyncapi.docstrings import comments_of
from protoflow.asyncapi.document import Payload, Perspective, document
from protoflow.asyncapi.page import to_html
from protoflow.asyncapi.text import to_json, to_yaml

__all__ = [
    "Bindings",
    "Consumer",
    "Deployment",
    "Payload",
    "Perspective",
    "comments_of",
    "document",
    "to_html",
    "to_json",
    "to_yaml",
]
