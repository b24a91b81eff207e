"""The target of `run`: a service or handlers in a module."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

from protoflow.error_codes import TARGET
from protoflow.errors import ConfigError, ProtoflowError
from protoflow.handler import Handler, HandlerSync
from protoflow.service import Service


def load(target: str) -> Service:
    """Returns the service that `module`, `module:service` or `module:Handler` names.

    A name may be a service, a function that makes one, or a handler class without arguments. A
    module alone must hold one service, or handler classes.

    Raises:
        ConfigError: the module cannot be imported, or contains no target.
    """
    module_name, _, name = target.partition(":")
    module = import_module(module_name)
    if name:
        return _service(_attribute(module, name), target)
    services = [value for value in vars(module).values() if isinstance(value, Service)]
    if len({id(service) for service in services}) == 1:
        return services[0]
    if services:
        names = [key for key, value in vars(module).items() if isinstance(value, Service)]
        raise ConfigError(
            f"{target} contains several services; name one: {target}:{names[0]}", code=TARGET
        )
    handlers = [value for value in vars(module).values() if _is_handler(value, module)]
    if not handlers:
        raise ConfigError(
            f"{target} contains no Service and no handler class; write {target}:NAME", code=TARGET
        )
    return _registered([_made(handler, target) for handler in handlers])


def import_module(name: str) -> ModuleType:
    """Imports a module of the working directory. Raises ConfigError."""
    if name.endswith(".py"):
        dotted = name[:-3].replace("/", ".").lstrip(".")
        raise ConfigError(f"{name} is a file; name the module: {dotted}", code=TARGET)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(
                f"module {name} is not found from the working directory", code=TARGET
            ) from None
        raise ConfigError(
            _failure(f"module {name} cannot be imported", error), code=TARGET
        ) from error
    except ProtoflowError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(
            _failure(f"module {name} cannot be imported", error), code=TARGET
        ) from error


def _failure(what: str, error: BaseException) -> str:
    """Describes a failure in the user's code and its location, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if "importlib" not in frame.filename]
    place = f" ({theirs[-1].filename}:{theirs[-1].lineno})" if len(theirs) > 1 else ""
    return f"{what}: {type(error).__name__}: {error}{place}"


def _attribute(module: ModuleType, name: str) -> Any:
    try:
        return getattr(module, name)
    except AttributeError:
        raise ConfigError(f"module {module.__name__} has no {name}", code=TARGET) from None


def _service(value: Any, target: str) -> Service:
    if isinstance(value, Service):
        return value
    if isinstance(value, type) and issubclass(value, Handler | HandlerSync):
        return _registered([_made(value, target)])
    if isinstance(value, Handler | HandlerSync):
        return _registered([value])
    if callable(value):
        made = _called(value, target)
        if isinstance(made, Service):
            return made
        if inspect.iscoroutine(made):
            made.close()
            raise ConfigError(
                f"{target} is asynchronous; name a plain function, or a Service", code=TARGET
            )
        raise ConfigError(f"{target} returned {type(made).__name__}, not a Service", code=TARGET)
    raise ConfigError(
        f"{target} is {type(value).__name__}, neither a Service nor a handler", code=TARGET
    )


def _is_handler(value: Any, module: ModuleType) -> bool:
    return (
        isinstance(value, type)
        and issubclass(value, Handler | HandlerSync)
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
    )


def _made(handler: type[Handler | HandlerSync], target: str) -> Handler | HandlerSync:
    try:
        inspect.signature(handler).bind()
    except TypeError as error:
        raise ConfigError(
            f"{target}: {handler.__name__} needs arguments ({error}); make a"
             " Service that has it and name that", code=TARGET) from None  # fmt: skip
    made: Handler | HandlerSync = _called(handler, target)
    return made


def _called(make: Callable[[], Any], target: str) -> Any:
    try:
        return make()
    except ProtoflowError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(_failure(f"{target} cannot be made", error), code=TARGET) from error


def _registered(handlers: list[Handler | HandlerSync]) -> Service:
    service = Service()
    service.register(*handlers)
    return service
