"""The data of templates: immutable, with every name decided.

Named tuples are used instead of frozen dataclasses, because importing dataclasses and making the
classes would take a fifth of the time of a small run.
"""

from __future__ import annotations

from typing import NamedTuple


class Setting(NamedTuple):
    """One field of a policy: its name and its value as Python text."""

    name: str
    value: str


class Delivery(NamedTuple):
    """A merged delivery policy, shared by all methods with this policy.

    Attributes:
        name: its variable, for example `_delivery_1`.
        settings: the fields that are set.
        retry: the fields of its retry policy that are set.
        dead_letter: the fields of its dead-letter policy that are set.
    """

    name: str
    settings: tuple[Setting, ...]
    retry: tuple[Setting, ...]
    dead_letter: tuple[Setting, ...]


class Message(NamedTuple):
    """A message and its event contract, as seen from one module.

    Attributes:
        name: the full name.
        reference: the class in Python, for example `_orders_pb2.Order.Line`.
        settings: the fields of its `MessageSpec` that are set.
        aliases: other types that are decoded as this message, as Python text.
        hides: whether a value can contain sensitive fields.
    """

    name: str
    reference: str
    settings: tuple[Setting, ...]
    aliases: tuple[str, ...]
    hides: bool = False


class Sensitive(NamedTuple):
    """A message type with its sensitive fields, as Python text."""

    type: str
    fields: tuple[str, ...]


class Publication(NamedTuple):
    """A producer's method: the message, its topic and its docstring."""

    method: str
    message: Message
    topic: str
    doc: tuple[str, ...]


class Method(NamedTuple):
    """An rpc that consumes; the attributes are those of `MethodSpec`.

    `delivery` is the variable of a `Delivery`, or empty if file, service and method set no policy.
    `output_topic` is empty if it is the topic of the message type. `effects` is empty if the method
    does not set it.
    """

    name: str
    handler: str
    input: Message
    topic: str
    group: str
    delivery: str
    output: Message | None
    output_topic: str
    batched: bool
    streams: bool
    batch: tuple[Setting, ...]
    broadcast: bool
    effects: str
    doc: tuple[str, ...]


class Handler(NamedTuple):
    """The handler class of a service, without the suffix of its variant."""

    class_name: str
    service: str
    methods: tuple[Method, ...]
    doc: tuple[str, ...]


class Producer(NamedTuple):
    """A producer class, without the suffix of its variant.

    Attributes:
        class_name: the name of the class.
        handler: the handler class of the service whose client this is; empty for events.
        publications: its methods.
        doc: the paragraphs of its docstring.
    """

    class_name: str
    handler: str
    publications: tuple[Publication, ...]
    doc: tuple[str, ...]


class Import(NamedTuple):
    """`from package import module as alias`; the package may be empty."""

    package: str
    module: str
    alias: str


class Variant(NamedTuple):
    """The asynchronous or the synchronous variant of the classes.

    Attributes:
        suffix: the suffix of class names and runtime bases.
        define: the first words of a method.
        context: the type of the context.
        results: the type of a stream of outputs.
        shares: whether it uses the spec of the classes without suffix.
    """

    suffix: str
    define: str
    context: str
    results: str
    shares: bool = False


class Module(NamedTuple):
    """A generated module.

    Attributes:
        source: the path of the .proto.
        generator: the version of this plugin.
        path: the path of the module.
        imports: the `_pb2` modules that it imports.
        messages: the messages that it names.
        sensitive: the types with sensitive fields that these messages can contain.
        deliveries: the delivery policies of its methods, each once.
        own_messages: the full names of messages that the .proto declares, as Python text.
        handlers: its handler classes.
        producers: its producer classes.
        variants: the variants of classes to make.
    """

    source: str
    generator: str
    path: str
    imports: tuple[Import, ...]
    messages: tuple[Message, ...]
    sensitive: tuple[Sensitive, ...]
    deliveries: tuple[Delivery, ...]
    own_messages: tuple[str, ...]
    handlers: tuple[Handler, ...]
    producers: tuple[Producer, ...]
    variants: tuple[Variant, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Returns all classes, sorted."""
        classes = [handler.class_name for handler in self.handlers]
        classes += [producer.class_name for producer in self.producers]
        return tuple(sorted(name + kind.suffix for name in classes for kind in self.variants))

    @property
    def handler_specs(self) -> tuple[str, ...]:
        """Returns the spec of each handler, as Python text."""
        return tuple(self._spec(handler.class_name) for handler in self.handlers)

    @property
    def producer_specs(self) -> tuple[str, ...]:
        """Returns the spec of each producer, as Python text."""
        return tuple(self._spec(producer.class_name) for producer in self.producers)

    def _spec(self, class_name: str) -> str:
        return f"{class_name}{self.variants[0].suffix}.__protoflow_spec__"
