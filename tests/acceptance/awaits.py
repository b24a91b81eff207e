"""Every `await` of a transport as a place where a test can make things fail.

The functions of the transport's modules are compiled anew with `await x` written as
`await _at(site, x)`, and get their old code back afterwards. So whoever adds an `await` has
added a place, and its test.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import types
from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

_NAME = "_at_await"
#: What only waits for time, or for others of this process, cannot fail; what `receive` raises
#: is final by its contract.
_WAITS = ("asyncio.", ".wait()", "sleep(", ".receive: ", "_inbox.get(")


class Places:
    """The awaits of a transport.

    Attributes:
        hits: how often each was come by.
        fired: whether the failure that was armed has happened.
    """

    def __init__(self) -> None:
        self.hits: Counter[str] = Counter()
        self.fired = False
        self._armed: tuple[str, bool] | None = None

    def arm(self, place: str, *, after: bool) -> None:
        """The next time at this place fails: before anything happened, or when all has."""
        self.fired = False
        self._armed = (place, after)

    def disarm(self) -> None:
        self._armed = None

    @property
    def able_to_fail(self) -> list[str]:
        """The places that were come by and do more than wait."""
        return sorted(
            place for place in self.hits
            if place.endswith(")") and not any(word in place for word in _WAITS)
        )  # fmt: skip

    async def at(self, place: str, awaited: Awaitable[Any]) -> Any:
        self.hits[place] += 1
        armed = self._armed
        if armed is None or armed[0] != place:
            return await awaited
        self._armed = None
        self.fired = True
        if armed[1]:
            await awaited
        elif inspect.iscoroutine(awaited):
            awaited.close()
        elif isinstance(awaited, Awaitable) and hasattr(awaited, "cancel"):
            awaited.cancel()
        raise ConnectionResetError(f"at {place}, says the test")


async def _untouched(_place: str, awaited: Awaitable[Any]) -> Any:
    return await awaited


class _Rewrite(ast.NodeTransformer):
    def __init__(self, module: str) -> None:
        self._module = module
        self._function = ""

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        before, self._function = self._function, node.name
        self.generic_visit(node)
        self._function = before
        return node

    def visit_Await(self, node: ast.Await) -> ast.AST:
        text = " ".join(ast.unparse(node.value).split())[:90]
        self.generic_visit(node)
        place = ast.Constant(f"{self._module}.{self._function}: {text}")
        call = ast.Call(ast.Name(_NAME, ast.Load()), [place, node.value], [])
        return ast.copy_location(ast.Await(call), node)


@contextmanager
def awaits_of(package: str) -> Iterator[Places]:
    """The awaits of all modules of a package, to be made to fail."""
    places = Places()
    changed: list[tuple[types.FunctionType, types.CodeType]] = []
    root = importlib.import_module(package)
    names = [package, *(f"{package}.{one.name}" for one in pkgutil.iter_modules(root.__path__))]
    try:
        for name in names:
            module = importlib.import_module(name)
            codes = _codes(module, name.rpartition(".")[2])
            for function in _functions(module):
                code = function.__code__
                new = codes.get((code.co_qualname, code.co_firstlineno))
                if new is not None and new.co_freevars == code.co_freevars:
                    changed.append((function, code))
                    function.__globals__[_NAME] = places.at
                    function.__code__ = new
        yield places
    finally:
        for function, code in changed:
            function.__code__ = code
            function.__globals__[_NAME] = _untouched  # what runs still has the new code


def _codes(module: types.ModuleType, name: str) -> dict[tuple[str, int], types.CodeType]:
    """The rewritten code of every function of a module."""
    tree = ast.fix_missing_locations(_Rewrite(name).visit(ast.parse(inspect.getsource(module))))
    found = {}
    todo = [compile(tree, str(module.__file__), "exec", dont_inherit=True)]
    while todo:
        code = todo.pop()
        found[(code.co_qualname, code.co_firstlineno)] = code
        todo += [inner for inner in code.co_consts if isinstance(inner, types.CodeType)]
    return found


def _functions(module: types.ModuleType) -> Iterator[types.FunctionType]:
    """Functions and methods that the module itself defines."""
    for value in list(vars(module).values()):
        members = [value, *vars(value).values()] if inspect.isclass(value) else [value]
        for member in members:
            function = inspect.unwrap(getattr(member, "__func__", member)) if member else None
            if isinstance(function, types.FunctionType) and function.__module__ == module.__name__:
                yield function
