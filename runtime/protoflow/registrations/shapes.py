"""Checks at registration that a handler can be called as its contract requires. Otherwise the first
message would find the error and use up its attempts."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

#: Return annotations of plain functions that return an awaitable.
_AWAITABLES = ("Awaitable", "Coroutine", "Future", "Task")


def shape_problem(
    name: str, call: Any, *, arguments: int = 2, sync: bool = False, streams: bool = False
) -> str | None:
    """Returns the error in a handler and its fix; None if no error is visible from outside.

    Args:
        name: the registered name of the handler.
        call: the function or bound method.
        arguments: the number of its arguments.
        sync: whether it runs in a thread.
        streams: whether it is a generator of outputs.
    """
    if not callable(call):
        return (
            f"{name}: the handler is {type(call).__name__}, which cannot be called; give a function"
        )
    function = _function(call)
    wrong = _wrong_kind(function, sync, streams)
    if wrong is None and not _takes(call, arguments):
        wanted = "the message and the context" if arguments == 2 else "the event"
        taken = "(message, context)" if arguments == 2 else "(event)"
        wrong = (
            f"it is called with {wanted}, which it does not take; write {taken} as its parameters"
        )
    if wrong is None:
        return None
    place = getattr(function, "__qualname__", type(call).__qualname__)
    return f"{name}: {place}: {wrong}"


def _wrong_kind(function: Any, sync: bool, streams: bool) -> str | None:
    coroutine = inspect.iscoroutinefunction(function)
    generator = inspect.isgeneratorfunction(function)
    async_generator = inspect.isasyncgenfunction(function)
    if sync:
        if coroutine or async_generator:
            return (
                "it runs in a thread; write `def` for `async def`, or derive from the other class"
            )
        if generator and not streams:
            return "it yields, but the rpc returns one message; return it"
        return None
    if streams:
        if coroutine:
            return "it must yield its outputs, but never yields; write `async def` with `yield`"
        if generator:
            return "it runs on the event loop; write `async def` for `def`"
        return None
    if async_generator or generator:
        fix = "return it" if async_generator else "return it, in an `async def`"
        return f"it yields, but one result is expected; {fix}"
    if not coroutine and _is_plain(function):
        return "it runs on the event loop; write `async def` for `def`"
    return None


def _is_plain(function: Any) -> bool:
    """Whether a function certainly returns no awaitable. A decorated one or a lambda may."""
    if not inspect.isfunction(function) or hasattr(function, "__wrapped__"):
        return False
    if function.__name__ == "<lambda>":
        return False
    returns = str(function.__annotations__.get("return", ""))
    return not any(kind in returns for kind in _AWAITABLES)


def _function(call: Any) -> Any:
    """Returns the function behind a bound method, a partial, a decorator or a callable object."""
    while True:
        if isinstance(call, partial):
            call = call.func
        elif inspect.ismethod(call):
            call = call.__func__
        elif inspect.isfunction(call):
            inner = getattr(call, "__wrapped__", None)
            # The result of a decorator counts, unless it is a plain function around the original.
            if inner is None or _is_marked(call):
                return call
            call = inner
        else:
            method = getattr(type(call), "__call__", None)  # noqa: B004  the method itself
            # An unmarked method may return an awaitable, as that of a mock does.
            return method if _is_marked(method) else call


def _is_marked(function: Any) -> bool:
    return (
        inspect.iscoroutinefunction(function)
        or inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
    )


def _takes(call: Callable[..., Any], arguments: int) -> bool:
    try:
        signature = inspect.signature(call)
    # the callable is written in C or unusual: only a call would show the error
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*range(arguments))
    except TypeError:
        return False
    return True
