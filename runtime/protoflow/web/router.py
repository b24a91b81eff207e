"""The router: it finds the route and the path parameters for a method and path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from protoflow.web.request import Request
from protoflow.web.response import Problem
from protoflow.web.route import Route


class Router:
    """Finds routes. A literal part of a path has priority over a parameter."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._paths: dict[tuple[str, ...], dict[str, Route]] = {}
        for route in routes:
            parts = tuple(route.path.split("/")[1:])
            self._paths.setdefault(parts, {})[route.method] = route

    def find(self, request: Request) -> tuple[Route, Mapping[str, str]]:
        """Returns the route and the parameters of the path.

        Raises:
            Problem: the path does not exist, or does not have this method.
        """
        segments = request.segments
        found = [
            (sum(parameter != part for parameter, part in _pairs(parts, segments)), parts)
            for parts in self._paths
            if _matches(parts, segments)
        ]
        if not found:
            raise Problem(404, "there is no such page; /api/v1/openapi.json lists those of the API")
        _, parts = min(found)
        methods = self._paths[parts]
        route = methods.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            allowed = ", ".join(sorted(methods))
            raise Problem(405, f"this page takes {allowed}", headers={"Allow": allowed})
        return route, {
            name[1:-1]: value for name, value in _pairs(parts, segments) if name.startswith("{")
        }


def _pairs(parts: Sequence[str], segments: Sequence[str]) -> Iterable[tuple[str, str]]:
    return zip(parts, segments, strict=True)


def _matches(parts: Sequence[str], segments: Sequence[str]) -> bool:
    return len(parts) == len(segments) and all(
        value if part.startswith("{") else part == value for part, value in _pairs(parts, segments)
    )
