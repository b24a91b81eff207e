"""The values of `--protoflow_opt`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from protoflow.error_codes import PARAMETER, coded

from protoc_gen_protoflow.errors import UserError
from protoc_gen_protoflow.names import bad_module_segment

#: The allowed values of parameters with a choice.
_CHOICES = {"handlers": ("async", "sync", "both"), "asyncapi": ("none", "yaml", "json")}
_KNOWN = ("handlers", "import_prefix", "import_map", "asyncapi")


class Parameters(NamedTuple):
    """The plugin's parameters.

    Attributes:
        handlers: the classes to generate: `async`, `sync` or `both`.
        import_prefix: the package that contains the `_pb2` modules.
        import_map: the package of the `_pb2` modules by directory, `shop/` to `myapp.gen.shop`.
        asyncapi: the format of AsyncAPI documents: `yaml`, `json`, or `none` for no document.
    """

    handlers: str = "async"
    import_prefix: str = ""
    import_map: Mapping[str, str] = MappingProxyType({})
    asyncapi: str = "none"


def parse(text: str) -> Parameters:
    """Reads the comma-separated parameters; one `UserError` reports every mistake."""
    single: dict[str, str] = {}
    packages: dict[str, str] = {}
    mistakes: list[str] = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = item.partition("=")
        if name not in _KNOWN:
            known = f"{', '.join(_KNOWN[:-1])} and {_KNOWN[-1]}"
            mistakes.append(f"unknown parameter {name!r}; known are {known}")
        elif not equals or not value:
            mistakes.append(f"parameter {name} has no value; write {name}=...")
        elif name == "import_map":
            mistakes += _add_package(packages, value)
        elif name in single:
            mistakes.append(f"parameter {name} is given twice; give it once")
        else:
            single[name] = value
            mistakes += _mistakes(name, value)
    if mistakes:
        raise UserError("\n".join(coded(mistake, PARAMETER) for mistake in mistakes))
    return Parameters(import_map=packages, **single)


def _mistakes(name: str, value: str) -> list[str]:
    choices = _CHOICES.get(name)
    if choices and value not in choices:
        return [f"parameter {name} is {value!r}; use one of {', '.join(choices)}"]
    if name == "import_prefix" and bad_module_segment(value) is not None:
        return [f"parameter import_prefix is {value!r}; use a Python package such as myapp.gen"]
    return []


def _add_package(packages: dict[str, str], value: str) -> list[str]:
    path, equals, package = value.partition("=")
    if not equals or not path.strip("/") or bad_module_segment(package) is not None:
        example = "shop/=myapp.gen.shop"
        return [f"parameter import_map is {value!r}; use a directory and a package: {example}"]
    if path.endswith(".proto"):
        directory = path.rpartition("/")[0] or "DIRECTORY"
        fix = f"use a directory: import_map={directory}/={package}"
        return [f"parameter import_map names the file {path}; {fix}"]
    path = path.strip("/") + "/"
    if path in packages:
        return [f"parameter import_map names {path} twice; name it once"]
    packages[path] = package
    return []
