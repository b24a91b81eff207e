"""The `_pb2` modules that a generated module imports, and their aliases."""

from __future__ import annotations

from protoc_gen_protoflow.model import Import
from protoc_gen_protoflow.names import module_stem
from protoc_gen_protoflow.parameters import Parameters
from protoc_gen_protoflow.request import File, Request

_NEVER_PREFIXED = ("google/", "protoflow/", "buf/")


def python_module(path: str, parameters: Parameters) -> str:
    """Returns the full name of the `_pb2` module of a .proto."""
    moved = [directory for directory in parameters.import_map if path.startswith(directory)]
    if moved:
        directory = max(moved, key=len)
        inside = module_stem(path.removeprefix(directory))
        return f"{parameters.import_map[directory]}.{inside}_pb2"
    module = f"{module_stem(path)}_pb2"
    if parameters.import_prefix and not path.startswith(_NEVER_PREFIXED):
        return f"{parameters.import_prefix}.{module}"
    return module


class Imports:
    """The aliases of all modules that a file can name; records those that are used.

    A module in the directory of the generated module has a short alias, `_orders_pb2`. Every other
    alias contains the whole path: `_billing_v1_orders_pb2`. Aliases end in `_pb2`, so that they do
    not clash with classes. All imports of the file take part in choosing the aliases, used or not,
    so that adding an rpc does not change them.
    """

    def __init__(self, file: File, request: Request, parameters: Parameters) -> None:
        self._parameters = parameters
        self._aliases = _aliases(file, request.visible(file))
        self._used: dict[str, Import] = {}

    def reference(self, file: File, name: str) -> str:
        """Returns the name of a message in the module, and notes that its module is used."""
        alias = self._aliases[file.name]
        if file.name not in self._used:
            package, _, module = python_module(file.name, self._parameters).rpartition(".")
            self._used[file.name] = Import(package, module, alias)
        return f"{alias}.{name}"

    def used(self) -> tuple[Import, ...]:
        """Returns the imports, sorted."""
        return tuple(sorted(self._used.values()))


def _aliases(file: File, visible: list[str]) -> dict[str, str]:
    directory, _, own = file.module.rpartition(".")
    aliases = {file.name: _alias(own)}
    taken = set(aliases.values())
    for name in visible:
        package, _, last = module_stem(name).rpartition(".")
        stem = last if package == directory else f"{package}_{last}".replace(".", "_")
        base = alias = _alias(stem)
        number = 2
        while alias in taken:
            alias = f"{base.removesuffix('_pb2')}_{number}_pb2"
            number += 1
        taken.add(alias)
        aliases.setdefault(name, alias)
    return aliases


def _alias(stem: str) -> str:
    # Only one underscore, because inside of classes Python mangles names that begin with two.
    return f"_{stem.lstrip('_')}_pb2"
