"""Renders models to text with the templates."""

from __future__ import annotations

import os.path
from binascii import crc32
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from protoflow.error_codes import MISSING_EXTRA, coded

from protoc_gen_protoflow import resources
from protoc_gen_protoflow.errors import UserError
from protoc_gen_protoflow.jinja_runtime import FILTERS, Context
from protoc_gen_protoflow.model import Module

if TYPE_CHECKING:
    import jinja2

TEMPLATES = ("module", "handler", "producer", "spec")

#: Renders a template with variables.
Render = Callable[[str, Mapping[str, object]], str]


def render(module: Module, template: Render) -> str:
    """Returns the text of a generated module."""
    parts = [template("module", {"module": module})]
    parts += [
        template("handler", {"handler": handler, "variant": variant})
        for handler in module.handlers
        for variant in module.variants
    ]
    parts += [
        template("producer", {"producer": producer, "variant": variant})
        for producer in module.producers
        for variant in module.variants
    ]
    parts.append(template("spec", {"module": module}))
    return "".join(parts)


def templates() -> Render:
    """Returns the compiled templates, or those of jinja2 if a template was edited."""
    from protoc_gen_protoflow import compiled

    functions = vars(compiled)
    if checksum(sources(resources.templates())) != functions["CHECKSUM"]:
        return live_templates()

    def template(name: str, variables: Mapping[str, object]) -> str:
        return "".join(functions[name](Context(variables)))

    return template


def live_templates() -> Render:
    """Returns the templates on disk, compiled by jinja2."""
    environment = jinja_environment()
    made = {
        name: environment.from_string(source)
        for name, source in sources(resources.templates()).items()
    }

    def template(name: str, variables: Mapping[str, object]) -> str:
        return made[name].render(variables)

    return template


def sources(directory: str) -> dict[str, str]:
    """Returns the text of each template."""
    found: dict[str, str] = {}
    for name in TEMPLATES:
        with open(os.path.join(directory, f"{name}.py.j2"), encoding="utf-8") as file:
            found[name] = file.read()
    return found


def checksum(templates: Mapping[str, str]) -> int:
    """Returns a checksum of templates, which detects that they were edited."""
    return crc32("\0".join(templates.values()).encode())


def jinja_environment() -> jinja2.Environment:
    """Returns the environment that compiles templates. Raises `UserError` without jinja2."""
    try:
        import jinja2
    except ImportError:
        raise UserError(
            coded(
                "jinja2 is missing; run: pip install 'protoc-gen-protoflow[codegen]'", MISSING_EXTRA
            )
        ) from None
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  the output is Python, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(FILTERS)
    return environment
