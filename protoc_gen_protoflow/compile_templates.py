"""Compiles templates into `compiled.py`: `python -m protoc_gen_protoflow.compile_templates`.

Run it after a change of the templates; until then every run of the plugin compiles them.
"""

from __future__ import annotations

import os.path

from protoc_gen_protoflow import resources
from protoc_gen_protoflow.render import checksum, jinja_environment, sources

TARGET = os.path.join(os.path.dirname(os.path.abspath(__file__)), "compiled.py")

_HEAD = '''\
# type: ignore
# ruff: noqa
# fmt: off
"""Generated from templates/ by protoc_gen_protoflow.compile_templates. DO NOT EDIT."""

from protoc_gen_protoflow.jinja_runtime import environment, internalcode, missing, str_join
from protoc_gen_protoflow.jinja_runtime import TemplateRuntimeError, Undefined
'''


def compiled() -> str:
    """Returns the text of `compiled.py`."""
    environment = jinja_environment()
    templates = sources(resources.templates())
    parts = [_HEAD]
    for name, source in templates.items():
        code = environment.compile(source, name, raw=True)
        body = code[code.index("def root(") : code.index("\nblocks = ")]
        parts.append(f"\n{body.replace('def root(', f'def {name}(', 1)}")
    parts.append(f"\nCHECKSUM = {checksum(templates)}\n")
    return "".join(parts)


if __name__ == "__main__":
    with open(TARGET, "w", encoding="utf-8") as file:
        file.write(compiled())
