"""Models into text, by the templates."""

from __future__ import annotations

from protoc_gen_protoflow import resources, text
from protoc_gen_protoflow.model import Module
from protoc_gen_protoflow.problems import UserError


class Renderer:
    """Renders modules."""

    def __init__(self) -> None:
        try:
            import jinja2
        except ImportError:
            raise UserError(
                "jinja2 is missing; run: pip install 'protoc-gen-protoflow[codegen]'"
            ) from None
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(resources.templates()),
            undefined=jinja2.StrictUndefined,
            autoescape=False,  # noqa: S701  Python text, not HTML
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        for function in (
            text.literal,
            text.call,
            text.sequence,
            text.opened,
            text.import_line,
            text.docstring,
            text.signature,
        ):
            self._environment.filters[function.__name__] = function

    def render(self, module: Module) -> str:
        parts = [self._part("module", module=module)]
        for handler in module.handlers:
            for variant in module.variants:
                parts.append(self._part("handler", handler=handler, variant=variant))
        for producer in module.producers:
            for variant in module.variants:
                parts.append(self._part("producer", producer=producer, variant=variant))
        parts.append(self._part("spec", module=module))
        return "".join(parts)

    def _part(self, name: str, **context: object) -> str:
        return self._environment.get_template(f"{name}.py.j2").render(context)
