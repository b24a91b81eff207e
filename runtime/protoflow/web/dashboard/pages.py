"""The shell of the dashboard and its files. They contain no data, so links can be shared."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Final

from protoflow.web.host import Host
from protoflow.web.request import Request
from protoflow.web.response import HTML, Problem, Response

#: The paths that a browser may open. The scripts select the content.
PATHS: Final = (
    *("/", "/handlers", "/handlers/{name}", "/topology", "/dead-letters", "/messages"),
    *("/messages/{id}", "/contract", "/settings"),
)
_TYPES = {
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
#: Only our own scripts, styles and frames are allowed.
_POLICY: Final = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'",
        "connect-src 'self'", "base-uri 'self'", "form-action 'none'", "frame-ancestors 'none'",
    )
)  # fmt: skip
_HEADERS: Final = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"}


async def shell(host: Host, request: Request) -> Response:
    """The dashboard, for browsers."""
    # The path is relative, so that the pages work below any prefix of a mount or a proxy.
    base = "../" * (request.path.count("/") - 1) or "./"
    body = _files()["index.html"].replace(b"{base}", base.encode())
    return Response(body=body, content_type=f"{HTML}; charset=utf-8", headers=dict(_HEADERS))


async def asset(host: Host, request: Request) -> Response:
    """A script, style or icon of the dashboard."""
    name = request.parameters["name"]
    ending = name.rpartition(".")[2]
    if ending not in _TYPES or name not in _files():
        raise Problem(404, "the dashboard has no such file")
    return Response(body=_files()[name], content_type=_TYPES[ending], headers=dict(_HEADERS))


@functools.cache
def _files() -> dict[str, bytes]:
    """The files by name, read once."""
    here = resources.files("protoflow.web.dashboard")
    folders = (here / "static", here / "vendor")
    return {file.name: file.read_bytes() for folder in folders for file in folder.iterdir()}
