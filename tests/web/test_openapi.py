"""The OpenAPI document is valid, and says what the route table says."""

from __future__ import annotations

from openapi_spec_validator import OpenAPIV31SpecValidator
from protoflow.web.openapi import document
from protoflow.web.routes import ROUTES
from protoflow.web.schemas import SCHEMAS


def test_the_document_is_valid() -> None:
    errors = list(OpenAPIV31SpecValidator(document(ROUTES)).iter_errors())
    assert not errors


def test_every_route_is_in_it() -> None:
    paths = document(ROUTES)["paths"]
    listed = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert listed == {(route.method, route.path) for route in ROUTES}
    operations = [one["operationId"] for methods in paths.values() for one in methods.values()]
    assert len(operations) == len(set(operations)) == len(ROUTES)
    purge = paths["/api/v1/dead-letters/purge"]["post"]
    assert purge["x-protoflow-role"] == "operate"
    assert purge["security"] == [{"token": []}]
    assert purge["requestBody"]["required"] is True
    assert paths["/healthz"]["get"]["security"] == []
    assert all(route.schema in SCHEMAS and (route.body or "Text") in SCHEMAS for route in ROUTES)
