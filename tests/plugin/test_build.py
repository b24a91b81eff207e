"""What the annotations come to: policies, subscriptions, sensitive paths, names in modules."""

from __future__ import annotations

from protoc_gen_protoflow import parameters
from protoc_gen_protoflow.generate import build
from protoc_gen_protoflow.model import Message, Method, Module
from protoc_gen_protoflow.request import Request

from .conftest import HEAD, Compile, Generate

EMPTY = "google.protobuf.Empty"


def module(compile_request: Compile, proto: str) -> Module:
    request = Request(compile_request(proto).SerializeToString())
    (built,) = build(request, parameters.parse("")).modules
    return built


def method(compile_request: Compile, proto: str, name: str = "M") -> Method:
    (handler,) = module(compile_request, proto).handlers
    return next(method for method in handler.methods if method.name.endswith(f".{name}"))


def settings(compile_request: Compile, proto: str, name: str = "M") -> dict[str, str]:
    """The delivery policy of a method, by the path of each setting."""
    built = module(compile_request, proto)
    (found,) = (
        delivery
        for delivery in built.deliveries
        for method in built.handlers[0].methods
        if method.name.endswith(f".{name}") and method.delivery == delivery.name
    )
    return {
        **{s.name: s.value for s in found.settings},
        **{f"retry.{s.name}": s.value for s in found.retry},
        **{f"dead_letter.{s.name}": s.value for s in found.dead_letter},
    }


def message(built: Module, name: str) -> Message:
    return next(message for message in built.messages if message.name == name)


def test_policies_merge_leaf_by_leaf(compile_request: Compile) -> None:
    found = settings(
        compile_request,
        f"""
        option (protoflow.v1.file).delivery = {{
          timeout: {{seconds: 30 nanos: 500000000}}
          concurrency: 1
          retry: {{max_attempts: 3 jitter: 0.25}}
          dead_letter: {{topic: "{{topic}}.{{group}}.x"}}
        }};
        message A {{ option (protoflow.v1.message).topic = "a"; }}
        service S {{
          option (protoflow.v1.service).delivery = {{
            timeout: {{seconds: 10}}
            retry: {{max_attempts: 4 initial_backoff: {{seconds: 1}}}}
          }};
          rpc M(A) returns ({EMPTY}) {{
            option (protoflow.v1.consume).delivery = {{
              retry: {{max_attempts: 5}}
              dead_letter: {{on_exhausted: ON_EXHAUSTED_DROP}}
            }};
          }}
        }}
        """,
    )
    assert found == {
        "concurrency": "1",
        "timeout": "10.0",  # one leaf: the nanos of the file are gone
        "retry.initial_backoff": "1.0",
        "retry.jitter": "0.25",
        "retry.max_attempts": "5",
        "dead_letter.on_exhausted": "_pf.OnExhausted.DROP",
        "dead_letter.topic": '"{topic}.{group}.x"',
    }


def test_settings_of_a_subscription_hold_for_all(compile_request: Compile) -> None:
    proto = f"""
        message A {{ option (protoflow.v1.message).topic = "a"; }}
        message B {{ string id = 1 [(protoflow.v1.field).partition_key = true]; }}
        service S {{
          option (protoflow.v1.service).delivery = {{
            concurrency: 2 unhandled: UNHANDLED_TYPES_SKIP
          }};
          rpc M(A) returns ({EMPTY}) {{
            option (protoflow.v1.consume) = {{topic: "t" delivery: {{ordering: ORDERING_PER_KEY}}}};
          }}
          rpc N(B) returns ({EMPTY}) {{
            option (protoflow.v1.consume) = {{
              topic: "t" broadcast: true delivery: {{concurrency: 9 timeout: {{seconds: 1}}}}
            }};
          }}
          rpc Other(B) returns ({EMPTY}) {{
            option (protoflow.v1.consume) = {{topic: "u"}};
          }}
        }}
        """
    m, n = method(compile_request, proto, "M"), method(compile_request, proto, "N")
    common = {
        "concurrency": "9",
        "ordering": "_pf.Ordering.PER_KEY",
        "unhandled": "_pf.UnhandledTypes.SKIP",
    }
    assert settings(compile_request, proto, "M") == common
    assert settings(compile_request, proto, "N") == {**common, "timeout": "1.0"}
    assert m.broadcast
    assert n.broadcast
    other = method(compile_request, proto, "Other")
    assert settings(compile_request, proto, "Other") == {
        "concurrency": "2",
        "unhandled": "_pf.UnhandledTypes.SKIP",
    }
    assert not other.broadcast


def test_topics_carry_the_prefix_of_the_file_they_are_written_in(generate: Generate) -> None:
    options = 'option (protoflow.v1.file).topic_prefix = "{}.";'
    one = HEAD + options.format("one") + 'message A { option (protoflow.v1.message).topic = "a"; }'
    two = (
        HEAD.replace("shop.v1;", "shop.v2;")
        + 'import "one.proto";'
        + options.format("two")
        + "service S { rpc M(shop.v1.A) returns (shop.v1.A) {"
        + '  option (protoflow.v1.consume) = {topic: "x"}; option (protoflow.v1.publish) = {}; } }'
    )
    text = generate({"one.proto": one, "two.proto": two}).files["two_protoflow.py"]
    assert 'topic="two.x"' in text
    assert 'topic="one.a"' in text
    assert "two.a" not in text


def test_sensitive_fields_by_type(compile_request: Compile) -> None:
    s = "[(protoflow.v1.field).sensitive = true]"
    built = module(
        compile_request,
        f"""
        message Top {{
          option (protoflow.v1.message).topic = "top";
          string plain = 1;
          string secret = 2 {s};
          Card card = 3;
          repeated Card cards = 4;
          map<string, Card> by_name = 5;
          map<string, string> words = 6 {s};
          Tree tree = 7;
          Free free = 8;
          Card hidden = 9 {s};
        }}
        message Plain {{ option (protoflow.v1.message).topic = "plain"; Free free = 1; }}
        message Other {{ string secret = 1 {s}; }}
        message Card {{ string number = 1 {s}; }}
        message Tree {{ Leaf leaf = 1; repeated Tree children = 2; }}
        message Leaf {{ Tree back = 1; string word = 2 {s}; }}
        message Free {{ Free again = 1; string word = 2; }}
        """,
    )
    assert dict(built.sensitive) == {
        '"shop.v1.Card"': ('"number"',),
        '"shop.v1.Leaf"': ('"word"',),
        '"shop.v1.Other"': ('"secret"',),
        '"shop.v1.Top"': ('"secret"', '"words"', '"hidden"'),
    }
    assert message(built, "shop.v1.Top").hides
    assert message(built, "shop.v1.Tree").hides
    assert not message(built, "shop.v1.Plain").hides
    assert "shop.v1.Free" not in [found.name for found in built.messages]


def test_an_any_and_an_extension_can_hold_whatever_the_file_knows(generate: Generate) -> None:
    base = """syntax = "proto2"; package base;
    import "protoflow/v1/options.proto";
    message Card { optional string number = 1 [(protoflow.v1.field).sensitive = true]; }
    """
    text = HEAD + 'import "{}"; import "google/protobuf/any.proto";'
    user = """
    message A { option (protoflow.v1.message).topic = "a"; google.protobuf.Any any = 1; }
    message B { option (protoflow.v1.message).topic = "b"; A a = 1; }
    message C { option (protoflow.v1.message).topic = "c"; string word = 1; }
    """
    extended = """syntax = "proto2"; package user;
    import "between.proto"; import "protoflow/v1/options.proto";
    message E { option (protoflow.v1.message).topic = "e"; extensions 100 to 200; }
    """
    made = generate(
        {
            "base.proto": base,
            "between.proto": 'syntax = "proto3"; import "base.proto";',
            "user.proto": text.replace("{}", "between.proto") + user,
            "extended.proto": extended,
            "apart.proto": extended.replace('import "between.proto";', "").replace("user", "apart"),
        }
    )
    assert not made.error
    line = '_sensitive: _c.Mapping[str, tuple[str, ...]] = {\n    "base.Card": ("number",),\n}\n'
    assert line in made.files["user_protoflow.py"]
    assert made.files["user_protoflow.py"].count("sensitive=_sensitive,") == 2
    assert line in made.files["extended_protoflow.py"]
    assert "sensitive" not in made.files["apart_protoflow.py"]


def test_types_that_hold_each_other_make_no_large_module(generate: Generate) -> None:
    numbers = range(40)
    text = "message Root { option (protoflow.v1.message).topic = 't'; E0 e = 1; }"
    for number in numbers:
        fields = "".join(f"E{n} f{n} = {n + 1};" for n in numbers)
        text += f"message E{number} {{ {fields} Lit lit = 100; }}"
    text += "message Lit { string value = 1 [(protoflow.v1.field).sensitive = true]; }"
    made = generate(text).only
    assert len(made) <= 4 * len(text) + 20_000


def test_aliases_of_modules_never_clash_and_stay(generate: Generate) -> None:
    paths = ["a_b/c.proto", "a/b_c.proto", "_a_b_c.proto", "x/orders.proto", "orders.proto"]
    topic = "message {} {{ option (protoflow.v1.message).topic = 't'; }}"
    protos = {
        path: HEAD.replace("shop.v1;", f"p{number};") + topic.format(f"M{number}")
        for number, path in enumerate(paths)
    }
    imports = "".join(f'import "{path}";' for path in paths)
    rpc = "rpc R{0}(p{0}.M{0}) returns (google.protobuf.Empty) {{ {1} }}"
    option = 'option (protoflow.v1.consume) = {{consumer_group: "g{}"}};'
    rpcs = [rpc.format(n, option.format(n)) for n in range(len(paths))]

    def aliases(chosen: list[str]) -> dict[str, str]:
        user = HEAD + imports + f"service S {{ {''.join(chosen)} }}"
        text = generate({**protos, "y/orders.proto": user}).files["y/orders_protoflow.py"]
        lines = [line.split() for line in text.splitlines() if "_pb2 as _" in line]
        return {" ".join(words[:-2]): words[-1] for words in lines}

    everything = aliases(rpcs)
    assert len(everything) == len(set(everything.values())) == len(paths)
    assert not any(alias.startswith("__") for alias in everything.values())
    for one in rpcs:
        assert aliases([one]).items() <= everything.items()
