"""Each mistake is reported with its place and the fix."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor_pb2 import MethodOptions
from protoflow.v1 import options_pb2

from .conftest import HEAD, Compile, Generate, answer

MESSAGES = """
message A { option (protoflow.v1.message).topic = "a"; string id = 1; }
message B { option (protoflow.v1.message).topic = "b"; string id = 1; }
message K {
  option (protoflow.v1.message).topic = "k";
  string id = 1 [(protoflow.v1.field).partition_key = true];
}
"""
GROUP = 'consumer_group: "{}"'
RPC = "rpc M(A) returns (google.protobuf.Empty) {{ option (protoflow.v1.consume) = {{ {} }}; }}"


def consume(options: str) -> str:
    return f"{MESSAGES} service S {{ {RPC.format(options)} }}"


def message(options: str) -> str:
    return f"message X {{ option (protoflow.v1.message) = {{ {options} }}; }}"


def field(text: str) -> str:
    return f'message X {{ option (protoflow.v1.message).topic = "x"; {text} }}'


def delivery(options: str) -> str:
    return consume(f"delivery: {{ {options} }}")


KEY = "[(protoflow.v1.field).partition_key = true]"
SUBJECT = "[(protoflow.v1.field).subject = true]"

ONE_MISTAKE = {
    message('topic: ""'): "shop.v1.X: topic is empty; give it a name or remove the option",
    message('topic: "' + "x" * 201 + '"'): "shop.v1.X: topic has 201 characters; use at most 200",
    message('topic: "a b"'): "topic is 'a b'; use letters",
    message('topic: "a/b"'): "topic is 'a/b'; use letters",
    message('topic: "{A}"'): "topic is '{A}'; use letters",
    message('topic: "{1a}"'): "topic is '{1a}'; use letters",
    message('topic: "a.{b"'): "topic is 'a.{b'; use letters",
    message('topic: ".a"'): "a segment between dots is empty",
    message('topic: "a..b"'): "a segment between dots is empty",
    message('topic: "a."'): "a segment between dots is empty",
    message('topic: "{topic}.x"'): "{topic} is only allowed in dead_letter.topic",
    message('topic: "x" type: ""'): "type is empty",
    message('topic: "x" type: " x"'): "type is ' x'; remove spaces",
    message('topic: "x" source: "{A}"'): "source is '{A}'; use {name} with",
    message('topic: "x" data_schema: ""'): "data_schema is empty",
    message(
        'topic: "x" aliases: "a" aliases: "a"'
    ): "alias 'a' is named twice or is the type itself",
    message(
        'topic: "x" aliases: "shop.v1.X"'
    ): "alias 'shop.v1.X' is named twice or is the type itself",
    message('topic: "x" encoding: ENCODING_UNSPECIFIED'): (
        "encoding is ENCODING_UNSPECIFIED, which is not allowed; use ENCODING_PROTOBUF, "
        "ENCODING_JSON"
    ),
    field(f"string a = 1 {KEY}; bytes b = 2 {KEY};"): (
        "shop.v1.X: a and b are both marked as partition_key; keep the mark on one of them"
    ),
    field(f"string a = 1 {SUBJECT}; string b = 2 {SUBJECT};"): "a and b are both marked as subject",
    field(f"repeated string a = 1 {KEY};"): "partition_key a is repeated",
    field(f"map<string, string> a = 1 {KEY};"): "partition_key a is repeated",
    field(f"bool a = 1 {KEY};"): "partition_key a is of type bool",
    field(f"X a = 1 {KEY};"): "partition_key a is of type message; choose a string, bytes or",
    field(f"double a = 1 {KEY};"): "partition_key a is of type double",
    field(f"bytes a = 1 {SUBJECT};"): "subject a is of type bytes",
    delivery("concurrency: 0"): "shop.v1.S.M: concurrency is 0; use at least 1",
    delivery("retry: {max_attempts: 0}"): "retry.max_attempts is 0; use at least 1",
    delivery("retry: {backoff_multiplier: 0.9}"): "retry.backoff_multiplier is 0.9; use at least 1",
    delivery("retry: {backoff_multiplier: nan}"): "retry.backoff_multiplier is nan",
    delivery("retry: {backoff_multiplier: inf}"): "retry.backoff_multiplier is inf",
    delivery("retry: {jitter: 1.1}"): "retry.jitter is 1.1; use a share from 0 to 1",
    delivery("retry: {jitter: -0.1}"): "retry.jitter is -0.1; use a share from 0 to 1",
    delivery("retry: {initial_backoff: {seconds: 2} max_backoff: {seconds: 1}}"): (
        "retry.initial_backoff is 2 s, more than retry.max_backoff, 1 s"
    ),
    delivery("timeout: {}"): "timeout is 0; use more than 0 or remove it",
    delivery("timeout: {seconds: -1}"): "timeout is negative",
    delivery("timeout: {nanos: -1}"): "timeout is negative",
    delivery(
        "timeout: {seconds: 1 nanos: -1}"
    ): "timeout has seconds and nanos with different signs",
    delivery("timeout: {seconds: 315360000}"): "timeout is 315360000 s, more than a year; use less",
    delivery("timeout: {nanos: 1000000000}"): "timeout has 1000000000 nanos; use fewer",
    delivery("retry: {max_backoff: {seconds: 315360000}}"): "max_backoff is 315360000 s, more than",
    delivery("ordering: ORDERING_PER_KEY"): "ordering is per key, but shop.v1.A has no key",
    delivery("ordering: ORDERING_UNSPECIFIED"): "ordering is ORDERING_UNSPECIFIED",
    delivery("start: START_UNSPECIFIED"): "start is START_UNSPECIFIED",
    delivery("unhandled: UNHANDLED_TYPES_UNSPECIFIED"): "unhandled is UNHANDLED_TYPES_UNSPECIFIED",
    delivery("dead_letter: {on_exhausted: ON_EXHAUSTED_UNSPECIFIED}"): "on_exhausted is ON_EXH",
    delivery('dead_letter: {topic: "a"}'): "dead_letter.topic is the consumed topic a",
    delivery('dead_letter: {topic: "{topic}"}'): "dead_letter.topic is the consumed topic a",
    delivery('dead_letter: {topic: ""}'): "dead_letter.topic is empty",
    delivery('dead_letter: {topic: "a b"}'): "dead_letter.topic is 'a b'; use letters",
    consume('consumer_group: ""'): "consumer_group is empty",
    consume('consumer_group: "a b"'): "consumer_group is 'a b'; use letters",
    consume(GROUP.format("g" * 199)): (
        "shop.v1.S.M: the dead-letter topic (default {topic}..{group}..dead) with its variables "
        "filled in has 208 "
        "characters; use at most 200: shorten topic or consumer_group, or set dead_letter.topic"
    ),
    delivery(
        f'dead_letter: {{topic: "{{group}}-{"x" * 192}"}}'
    ): "dead_letter.topic with its variables filled in has",
    delivery(
        'dead_letter: {topic: "{topics}.dead"}'
    ): "'{topics}.dead'; write {topic} for {topics}",
    delivery('dead_letter: {topic: "x..dead"}'): "a segment between dots is empty",
    delivery('dead_letter: {topic: "{topic}..{group}...dead"}'): "a segment between dots is empty",
    message(
        'topic: "${region}.a"'
    ): "topic is '${region}.a'; write variables as {name}, without '$'",
    consume('topic: "?"'): "shop.v1.S.M: topic is '?'; use letters",
    consume("batch: {max_messages: 2}"): "batch has no effect without a stream of inputs",
    "message N {} service S { rpc M(N) returns (google.protobuf.Empty) "
    "{ option (protoflow.v1.consume) = {}; } }": "has no topic to consume; set",
    MESSAGES + "message N {} service S { rpc M(A) returns (N) "
    "{ option (protoflow.v1.consume) = {}; option (protoflow.v1.publish) = {}; } }": (
        "has no topic to publish; set (protoflow.v1.publish).topic, or "
        "(protoflow.v1.message).topic on shop.v1.N"
    ),
    MESSAGES + "service S { rpc M(A) returns (B) { option (protoflow.v1.consume) = {}; } }": (
        "returns shop.v1.B but does not publish it"
    ),
    MESSAGES + "service S { rpc M(A) returns (B) { option (protoflow.v1.publish) = {}; } }": (
        "publishes without consuming"
    ),
    MESSAGES + "service S { rpc M(A) returns (google.protobuf.Empty) "
    "{ option (protoflow.v1.consume) = {}; option (protoflow.v1.publish) = {}; } }": (
        "would publish google.protobuf.Empty"
    ),
    MESSAGES + "service S { rpc M(A) returns (stream google.protobuf.Empty) "
    "{ option (protoflow.v1.consume) = {}; } }": "returns a stream of Empty",
    MESSAGES + "service S { rpc M(stream A) returns (google.protobuf.Empty) "
    "{ option (protoflow.v1.consume) = {batch: {max_messages: 0}}; } }": "max_messages is 0",
    MESSAGES + "service S { rpc M(stream A) returns (google.protobuf.Empty) "
    "{ option (protoflow.v1.consume) = {batch: {max_wait: {}}}; } }": "max_wait is 0",
    MESSAGES + 'service S { option (protoflow.v1.service).consumer_group = "g"; }': (
        "(protoflow.v1.service) has no effect on a service that consumes nothing"
    ),
    'option (protoflow.v1.file).topic_prefix = "a b.";' + MESSAGES: "topic_prefix is 'a b.x'",
    'option (protoflow.v1.file).topic_prefix = "shop";' + MESSAGES: (
        "topic_prefix is 'shop', which is put before each topic unchanged: 'orders' becomes "
        "'shoporders'; end it with '.', '-' or '_'"
    ),
    'option (protoflow.v1.file).topic_prefix = "shop.";' + message('topic: "shop.x"'): (
        "shop.v1.X: topic is 'shop.x', and topic_prefix is put before it: 'shop.shop.x'; write 'x'"
    ),
    'option (protoflow.v1.file).delivery.dead_letter.topic = "{topic}.dead";': (
        "orders.proto:6:1: shop.v1: dead_letter.topic lacks {group}"
    ),
    'option (protoflow.v1.file).source = "";': "source is empty",
    "message None { option (protoflow.v1.message).topic = 'x'; }": "None is a keyword of Python",
    "message X { message None { option (protoflow.v1.message).topic = 'x'; } }": "None is a key",
    "message __X { option (protoflow.v1.message).topic = 'x'; }": "__X begins with '_'",
    MESSAGES + f"service S {{ {RPC.format('').replace('M(', '_m(')} }}": "_m begins with '_'",
    MESSAGES + f"service S {{ {RPC.format('').replace('M(', '__init__(')} }}": "__init__ begins",
}


@pytest.mark.parametrize("proto", ONE_MISTAKE)
def test_a_mistake_is_reported(generate: Generate, proto: str) -> None:
    result = generate(proto)
    assert not result.files
    (line,) = result.errors
    assert ONE_MISTAKE[proto] in line
    assert line.startswith("orders.proto:")
    assert line.split(":")[1].isdigit()


SAME_NAMES = {
    "rpc BillOrder {0} rpc bill_order {0}": "becomes bill_order in Python, as shop.v1.S.BillOrder",
    "rpc Bill {0} rpc BillMany {0}": "becomes bill_many in Python, as shop.v1.S.Bill does",
}


@pytest.mark.parametrize("rpcs", SAME_NAMES)
def test_methods_that_become_one(generate: Generate, rpcs: str) -> None:
    first = (
        '(A) returns (google.protobuf.Empty) {{ option (protoflow.v1.consume) = {{topic: "{}"}}; }}'
    )
    parts = rpcs.split("{0}")
    text = parts[0] + first.format("x") + parts[1] + first.format("y")
    (line,) = generate(f"{MESSAGES} service S {{ {text} }}").errors
    assert SAME_NAMES[rpcs] in line


def test_classes_that_become_one(generate: Generate) -> None:
    protos = MESSAGES + "".join(
        f"service {name} {{ {RPC.format(GROUP.format(name))} }}"
        for name in ("T", "TService", "OrdersEvent")
    )
    errors = generate(protos).errors
    (line,) = errors
    assert "shop.v1.TService: becomes THandler in Python, as shop.v1.T does; move one of" in line


def subscription(*methods: str) -> str:
    rpcs = "".join(
        f"rpc M{number}({method.partition(' ')[0]}) returns (google.protobuf.Empty) {{ "
        f'option (protoflow.v1.consume) = {{ topic: "t" {method.partition(" ")[2]} }}; }}'
        for number, method in enumerate(methods)
    )
    return f"{MESSAGES} service S {{ {rpcs} }}"


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("concurrency", "concurrency: 1", "concurrency: 2"),
        ("ordering", "ordering: ORDERING_NONE", "ordering: ORDERING_PER_PARTITION"),
        ("unhandled", "unhandled: UNHANDLED_TYPES_SKIP", "unhandled: UNHANDLED_TYPES_DEAD_LETTER"),
        ("start", "start: START_EARLIEST", "start: START_LATEST"),
        ("atomic", "atomic: true", "atomic: false"),
    ],
)
def test_settings_of_a_subscription_differ(
    generate: Generate, name: str, first: str, second: str
) -> None:
    text = subscription(f"A delivery: {{ {first} }}", f"B delivery: {{ {second} }}")
    (line,) = generate(text).errors
    assert f"shop.v1.S.M1: {name} is " in line
    assert "in shop.v1.S.M0, although both consume t in the group shop.v1.S" in line


def test_effects_of_a_broadcast(generate: Generate) -> None:
    (line,) = generate(subscription("A broadcast: true effects: EFFECTS_EXACTLY_ONCE")).errors
    assert "shop.v1.S.M0: effects exactly once and broadcast exclude each other" in line


def test_broadcast_differs(generate: Generate) -> None:
    (line,) = generate(subscription("A broadcast: true", "B broadcast: false")).errors
    assert "shop.v1.S.M1: broadcast differs from shop.v1.S.M0" in line


def test_a_type_is_consumed_twice(generate: Generate) -> None:
    (line,) = generate(subscription("A", "A")).errors
    assert "shop.v1.S.M1: consumes shop.v1.A from t in the group shop.v1.S, as shop.v1.S.M0" in line


def test_a_type_is_consumed_twice_by_its_alias(generate: Generate) -> None:
    text = subscription("A", "B").replace('topic = "b";', 'aliases = "shop.v1.A";')
    (line,) = generate(text).errors
    assert "shop.v1.S.M1: consumes shop.v1.A from t" in line


def test_unknown_fields_are_version_skew(compile_request: Compile) -> None:
    request = compile_request(consume("delivery: {retry: {max_attempts: 2}}"))
    options = request.proto_file[-1].service[0].method[0].options.Extensions[options_pb2.consume]
    options.MergeFromString(b"\x98\x06\x01")  # field 99
    options.delivery.retry.MergeFromString(b"\x98\x06\x01")
    errors = answer(request).errors
    assert len(errors) == 2
    assert "field 99 of protoflow.v1.ConsumeOptions is not known to this plugin" in errors[0]
    assert "field 99 of protoflow.v1.RetryPolicy is not known" in errors[1]
    assert "upgrade protoc-gen-protoflow" in errors[0]


def test_unknown_enum_values_are_version_skew(compile_request: Compile) -> None:
    request = compile_request(consume("delivery: {}"))
    options: MethodOptions = request.proto_file[-1].service[0].method[0].options
    options.Extensions[options_pb2.consume].delivery.MergeFromString(b"\x08\x63")
    (line,) = answer(request).errors
    assert "value 99 of ordering is not known to this plugin" in line


def test_field_options_on_an_extension(generate: Generate) -> None:
    text = (
        'syntax = "proto2"; package p; import "protoflow/v1/options.proto";'
        "message X { extensions 100 to 200; extend X { optional string a = 101 {k}; } }"
        "extend X { optional string b = 102 {k}; }"
    ).replace("{k}", KEY)
    errors = generate({"x.proto": text}).errors
    assert ["extension a" in errors[0], "extension b" in errors[1]] == [True, True]


@pytest.mark.parametrize("path", ["import/x.proto", "a/class.proto", "1a/x.proto", "a b/x.proto"])
def test_paths_that_cannot_be_imported(generate: Generate, path: str) -> None:
    if path == "a/class.proto":
        # The module is `class_pb2`: a keyword in a file name does no harm.
        assert "a/class_protoflow.py" in generate({path: HEAD + MESSAGES}).files
        return
    (line,) = generate({path: HEAD + MESSAGES}).errors
    assert "so that Python cannot import its modules; rename the file or directory" in line


@pytest.mark.parametrize(
    ("path", "hider"),
    [
        ("types/v1/x.proto", "the module types of the standard library"),
        ("io/x.proto", "the module io of the standard library"),
        ("protoflow/acme/x.proto", "the runtime's package"),
        ("protoflow/v1/x.proto", "the runtime's package"),
        ("google/protobuf/acme/x.proto", "the package of protobuf"),
    ],
)
def test_directories_that_are_hidden(generate: Generate, path: str, hider: str) -> None:
    directory = path.rpartition("/")[0]
    (line,) = generate({path: HEAD + MESSAGES}).errors
    assert line.startswith(f"{path}: shop.v1: {directory}/ is hidden in Python by {hider}, so that")
    assert "rename the directory, or move its modules into a package with " in line
    assert line.endswith(f"--protoflow_opt=import_map={directory}/=PACKAGE [PF102]")
    moved = generate({path: HEAD + MESSAGES}, f"import_map={directory}/=my.pkg")
    assert "from my.pkg import x_pb2" in moved.only
    # Also where a file needs a module that is hidden.
    user = HEAD.replace("shop.v1;", "user;") + f'import "{path}";'
    user += f"service S {{ {RPC.format('').replace('(A)', '(shop.v1.A)')} }}"
    (line,) = generate({path: HEAD + MESSAGES, "user.proto": user}, wanted=["user.proto"]).errors
    assert line.startswith(f"user.proto:6:1: user: {directory}/ is hidden in Python by ")


@pytest.mark.parametrize("path", ["x/types.proto", "test/x.proto", "google/type/x.proto"])
def test_names_that_hide_nothing(generate: Generate, path: str) -> None:
    assert generate({path: HEAD + MESSAGES}).only


def test_a_prefix_moves_modules_from_where_they_are_hidden(generate: Generate) -> None:
    assert (
        "from gen.types import x_pb2"
        in generate({"types/x.proto": HEAD + MESSAGES}, "import_prefix=gen").only
    )


@pytest.mark.parametrize(
    ("path", "form"), [("caf\u00e9.proto", "NFC"), ("cafe\u0301.proto", "NFD")]
)
def test_file_names_in_another_normal_form(generate: Generate, path: str, form: str) -> None:
    made = generate({path: HEAD + MESSAGES})
    if form == "NFC":
        assert made.only
        return
    (line,) = made.errors
    assert "is not in the Unicode normal form (NFKC) to which Python converts names" in line


def test_protodevel_files_have_modules(generate: Generate) -> None:
    made = generate({"a/x.protodevel": HEAD + MESSAGES})
    assert list(made.files) == ["a/x_protoflow.py"]
    assert "from a import x_pb2 as _x_pb2" in made.only
    assert "class XEventProducer" in made.only


def test_a_message_that_its_outer_one_hides(generate: Generate) -> None:
    topic = 'option (protoflow.v1.message).topic = "x";'
    (line,) = generate(f"message X {{ message DESCRIPTOR {{ {topic} }} }}").errors
    assert "orders.proto:6:13: shop.v1.X.DESCRIPTOR: DESCRIPTOR is hidden in Python by" in line
    assert generate(f"message DESCRIPTOR {{ {topic} }}").only


def test_a_service_that_is_called_like_the_event_producer(generate: Generate) -> None:
    service = f"service EventService {{ {RPC.format('')} }}"
    text = generate({"event.proto": HEAD + MESSAGES + service}).only
    for name in ("EventHandler", "EventProducer", "EventEventProducer"):
        assert f"class {name}(" in text
    # A service without consumers has no class to give way to.
    plain = "service EventService { rpc M(A) returns (B); }"
    text = generate({"event.proto": HEAD + MESSAGES + plain}).only
    assert "class EventProducer(" in text
    assert "class EventEventProducer(" not in text


LOOPS = {
    'rpc L(A) returns (A) { C = {topic: "x"}; P = {topic: "x"}; }': (
        "shop.v1.S.L: publishes shop.v1.A to x, from which it consumes it"
    ),
    'rpc L(A) returns (stream A) { C = {topic: "x"}; P = {topic: "x"}; }': (
        "shop.v1.S.L: publishes shop.v1.A to x, from which it consumes it"
    ),
    'rpc L(A) returns (B) { C = {delivery: {dead_letter: {topic: "b"}}}; P = {}; }': (
        "shop.v1.S.L: dead_letter.topic is b, to which the method publishes its outputs"
    ),
    'rpc L(A) returns (E) { C = {topic: "x" delivery: {dead_letter: {topic: "y"}}}; }'
    'rpc M(A) returns (E) { C = {topic: "y" delivery: {dead_letter: {topic: "x"}}}; }': (
        "shop.v1.S.L: dead letters circulate for ever: shop.v1.S.L sends those of x to y, shop.v1"
        ".S.M sends those of y to x; choose another dead_letter.topic in one of them"
    ),
    'rpc L(A) returns (E) { C = {topic: "x" delivery: {dead_letter: {topic: "y"}}}; }'
    'rpc M(B) returns (E) { C = {topic: "y" delivery: {dead_letter: {topic: "z"} unhandled: U}}; }'
    'rpc N(A) returns (E) { C = {topic: "z" delivery: {dead_letter: {topic: "x"}}}; }': (
        "x to y, shop.v1.S.M sends those of y to z, shop.v1.S.N sends those of z to x; choose"
    ),
}
NO_LOOPS = {
    "another type there": 'rpc L(A) returns (B) { C = {topic: "x"}; P = {topic: "x"}; }',
    "a chain that ends": (
        'rpc L(A) returns (E) { C = {topic: "x" delivery: {dead_letter: {topic: "y"}}}; }'
        'rpc M(A) returns (E) { C = {topic: "y"}; }'
    ),
    "a type that a step does not handle": (
        'rpc L(A) returns (E) { C = {topic: "x" delivery: {dead_letter: {topic: "y"}}}; }'
        'rpc M(B) returns (E) { C = {topic: "y" delivery: {dead_letter: {topic: "x"}}}; }'
    ),
}


def loop(text: str) -> str:
    for short, long in {
        "C =": "option (protoflow.v1.consume) =",
        "P =": "option (protoflow.v1.publish) =",
        "(E)": "(google.protobuf.Empty)",
        ": U}": ": UNHANDLED_TYPES_DEAD_LETTER}",
    }.items():
        text = text.replace(short, long)
    return f"{MESSAGES} service S {{ {text} }}"


@pytest.mark.parametrize("rpcs", LOOPS)
def test_messages_that_come_back(generate: Generate, rpcs: str) -> None:
    (line,) = generate(loop(rpcs)).errors
    assert LOOPS[rpcs] in line


@pytest.mark.parametrize("case", NO_LOOPS)
def test_messages_that_do_not_come_back(generate: Generate, case: str) -> None:
    assert generate(loop(NO_LOOPS[case])).only


def test_a_prefix_goes_before_a_dead_letter_topic(generate: Generate) -> None:
    prefix = 'option (protoflow.v1.file).topic_prefix = "shop.";'
    text = generate(prefix + delivery('dead_letter: {topic: "failed"}')).only
    assert 'topic="shop.failed"' in text
    # {topic} has it already.
    text = generate(prefix + delivery('dead_letter: {topic: "{topic}..{group}..lost"}')).only
    assert 'topic="{topic}..{group}..lost"' in text
    (line,) = generate(prefix + delivery('dead_letter: {topic: "shop.failed"}')).errors
    assert "dead_letter.topic is 'shop.failed', and topic_prefix is put before it" in line


def test_a_mark_inside_a_field_is_no_key(generate: Generate) -> None:
    text = "message Deep { option (protoflow.v1.message).topic = 'd'; K inner = 1; }"
    rpc = RPC.format("delivery: {ordering: ORDERING_PER_KEY}").replace("(A)", "(Deep)")
    (line,) = generate(f"{MESSAGES} {text} service S {{ {rpc} }}").errors
    assert (
        "shop.v1.Deep has no key (shop.v1.Deep.inner.id is marked, but in a nested message); mark"
        in line
    )
    assert "mark a field of the message itself with (protoflow.v1.field).partition_key" in line


def test_import_map_takes_no_file(generate: Generate) -> None:
    made = generate({"shop/v1/a.proto": HEAD + MESSAGES}, "import_map=shop/v1/a.proto=x.y")
    assert made.error == (
        "parameter import_map names the file shop/v1/a.proto; use a directory: "
        "import_map=shop/v1/=x.y [PF115]"
    )


def test_paths_that_become_one(generate: Generate) -> None:
    two = HEAD.replace("shop.v1;", "shop.v2;") + MESSAGES
    (line,) = generate({"a-b.proto": HEAD + MESSAGES, "a_b.proto": two}).errors
    assert line == (
        "a_b.proto: shop.v2: becomes a_b_protoflow.py in Python, as a-b.proto does; "
        "rename one of the files [PF101]"
    )


def test_all_mistakes_at_once_in_order(generate: Generate) -> None:
    text = message('topic: ".."') + "\n" + consume('topic: "?"')
    errors = generate(text).errors
    assert len(errors) == 2
    assert errors == sorted(errors, key=lambda line: int(line.split(":")[1]))


def test_no_source_info_gives_no_position(compile_request: Compile) -> None:
    request = compile_request(message('topic: ".."'))
    for file in request.proto_file:
        file.ClearField("source_code_info")
    assert answer(request).error.startswith("orders.proto: shop.v1.X: topic is '..'")
