"""The OpenAPI document, made from the route table."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from protoflow import __version__
from protoflow.web.request import Role
from protoflow.web.response import PROBLEM
from protoflow.web.route import Route
from protoflow.web.schemas import SCHEMAS

_DESCRIPTION = (
    "What a service shows of itself, and what operators change. It acts on one process: other "
    "processes of a group are not changed."
)


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """Returns the document, OpenAPI 3.1."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Protoflow service", "version": __version__, "description": _DESCRIPTION
        },
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }  # fmt: skip


def _operation(route: Route) -> dict[str, Any]:
    in_path = re.findall(r"{(\w+)}", route.path)
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{re.sub(r'[^A-Za-z0-9]+', '_', route.path)}".strip(
            "_"
        ),
        "summary": route.summary,
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in in_path
            ),
            *(
                {"name": name, "in": "query", "schema": schema}
                for name, schema in route.query.items()
            ),
        ],
        "responses": {
            str(route.status): {
                "description": route.summary,
                "content": {route.content_type: {"schema": _reference(route.schema)}},
            },
            "default": {
                "description": "An error.",
                "content": {PROBLEM: {"schema": _reference("Problem")}},
            },
        },
        "security": [] if route.role is Role.NONE else [{"token": []}],
        "x-protoflow-role": route.role.label,
    }
    if route.body:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _reference(route.body)}},
        }
    return operation


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
