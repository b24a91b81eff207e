"""Rules of the contract: `(buf.validate.field)` of protovalidate and similar options.

At start the types with rules are found, including those in nested messages. Messages of other types
are not checked. The text of a violation names the field and the rule, never the value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message as ProtoMessage

from protoflow.contract.spec import MessageSpec
from protoflow.errors import MissingExtraError

#: The extension number of buf.validate on message, oneof and field options.
_NUMBER = 1159
_MOST_SHOWN = 10

#: Returns the error in a message; None if it is valid.
Check = Callable[[ProtoMessage], str | None]


class ProtoValidator(Protocol):
    """A user-defined validator for all messages; it may raise any exception."""

    def validate(self, message: Any, /) -> None:
        """Raises if the message is invalid."""
        ...


def check_of(spec: MessageSpec, validator: ProtoValidator | None = None) -> Check | None:
    """Returns the compiled check for a contract's messages; None if they have no rules.

    Raises:
        MissingExtraError: they have rules, and protovalidate is not installed.
    """
    if validator is not None:
        return _by(validator)
    if not has_rules(spec.message_class.DESCRIPTOR):
        return None
    check = _protovalidate(spec.type)
    check(spec.message_class())  # compiles the rules now, because this takes milliseconds
    return check


# Any: the type stubs of protobuf disagree about descriptors
def has_rules(descriptor: Any) -> bool:
    """Whether a type, or a type that it contains, has rules."""
    seen: set[str] = set()
    waiting: list[Descriptor] = [descriptor]
    while waiting:
        current = waiting.pop()
        if current.full_name in seen:
            continue
        seen.add(current.full_name)
        if any(_marked(options) for options in _options(current)):
            return True
        waiting += [field.message_type for field in current.fields if field.message_type]
    return False


def _options(descriptor: Descriptor) -> Iterator[Any]:
    yield descriptor.GetOptions()
    for oneof in descriptor.oneofs:
        yield oneof.GetOptions()
    for field in descriptor.fields:
        yield field.GetOptions()


def _marked(options: Any) -> bool:
    """Whether options contain the extension, even if this process does not know it."""
    if any(field.number == _NUMBER for field, _value in options.ListFields()):
        return True
    from google.protobuf.unknown_fields import UnknownFieldSet

    unknown: Any = UnknownFieldSet(options)  # the stub lacks iteration
    return any(field.field_number == _NUMBER for field in unknown)


def _by(validator: ProtoValidator) -> Check:
    def check(message: ProtoMessage) -> str | None:
        try:
            validator.validate(message)
        except Exception as error:
            # Its text may contain parts of the message.
            return f"{message.DESCRIPTOR.full_name}: {type(error).__name__}"
        return None

    return check


_validators: list[Any] = []


def _protovalidate(type_name: str) -> Check:
    if not _validators:
        try:
            import protovalidate
        except ImportError as error:
            raise MissingExtraError(
                "validate", f"{type_name} has rules of buf.validate, but protovalidate"
            ) from error
        _validators.append(protovalidate.Validator())
    collect = _validators[0].collect_violations

    def check(message: ProtoMessage) -> str | None:
        violations = collect(message)
        return _text(type_name, violations) if violations else None

    return check


def _text(type_name: str, violations: list[Any]) -> str:
    shown = [_violation(violation.proto) for violation in violations[:_MOST_SHOWN]]
    if len(violations) > _MOST_SHOWN:
        shown.append(f"and {len(violations) - _MOST_SHOWN} more")
    return f"{type_name}: {'; '.join(shown)}"


def _violation(proto: Any) -> str:
    # `proto.message` is not used: CEL rules may put values into it.
    path = ".".join(element.field_name for element in proto.field.elements) if proto.field else ""
    return f"{path or 'message'} violates {proto.rule_id or 'a rule'}"
