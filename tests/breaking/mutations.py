"""Mutations of a contract, each with the kinds of changes that must be found in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_RETRY = (
    "retry: {max_attempts: 1000 initial_backoff: {nanos: 30000000} backoff_multiplier: 1 jitter: 0}"
)

BASE = f"""
message OrderPlaced {{
  option (protoflow.v1.message).topic = "orders";
  string order_id = 1 [(protoflow.v1.field).partition_key = true];
  int64 n = 2;
  string customer_id = 3;
  string email = 4 [(protoflow.v1.field).sensitive = true];
}}
message OrderPaid {{
  option (protoflow.v1.message).topic = "orders";
  string order_id = 1 [(protoflow.v1.field).partition_key = true];
  int64 n = 2;
}}
message OrderBilled {{
  option (protoflow.v1.message).topic = "bills";
  string order_id = 1 [(protoflow.v1.field).partition_key = true];
  int64 n = 2;
}}
service Orders {{
  option (protoflow.v1.service) = {{
    consumer_group: "billing"
    delivery: {{
      ordering: ORDERING_PER_KEY
      {_RETRY}
    }}
  }};
  rpc BillOrder(OrderPlaced) returns (OrderBilled) {{
    option (protoflow.v1.consume) = {{}};
    option (protoflow.v1.publish) = {{}};
  }}
  rpc TakePayment(OrderPaid) returns (google.protobuf.Empty) {{
    option (protoflow.v1.consume) = {{}};
  }}
}}
service Audit {{
  option (protoflow.v1.service) = {{
    consumer_group: "audit"
    delivery: {{ {_RETRY} }}
  }};
  rpc Record(OrderBilled) returns (google.protobuf.Empty) {{
    option (protoflow.v1.consume) = {{}};
  }}
}}
"""

_BILL = "rpc BillOrder(OrderPlaced) returns (OrderBilled) {\n    option (protoflow.v1.consume) = {}"
_PAY = """  rpc TakePayment(OrderPaid) returns (google.protobuf.Empty) {
    option (protoflow.v1.consume) = {};
  }
"""
_AUDIT = BASE[BASE.index("service Audit") :]
_SERVICE_DELIVERY = "    delivery: {\n      ordering"
_FEW = _RETRY.replace("1000", "3")
_REFUND = """message OrderRefunded {
  option (protoflow.v1.message).topic = "orders";
  string order_id = 1 [(protoflow.v1.field).partition_key = true];
  int64 n = 2;
}
"""


def changed(text: str, *edits: str) -> str:
    """The text with each odd edit replaced by the even one after it; "" appends."""
    for old, new in zip(edits[::2], edits[1::2], strict=True):
        assert not old or old in text, f"{old!r} is not in the contract"
        text = text.replace(old, new) if old else text + new
    return text


def _policy(text: str, base: str = BASE) -> str:
    """The base with more in the service's delivery policy."""
    return changed(base, _SERVICE_DELIVERY, f"    delivery: {{\n      {text}\n      ordering")


def _method(text: str, base: str = BASE) -> str:
    """The base with a delivery policy at the method that bills."""
    return changed(base, _BILL, _BILL.replace("{}", f"{{ delivery: {{ {text} }} }}"))


def _file(text: str, base: str = BASE) -> str:
    """The base with a delivery policy of the file."""
    return f"option (protoflow.v1.file) = {{ delivery: {{ {text} }} }};\n{base}"


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """Two versions of a contract.

    Attributes:
        kinds: the kinds of changes between them, all of them.
        new, old: their texts.
        old_settings, new_settings: their settings.
        elsewhere: the contracts of consumers elsewhere, before and after.
        slow: whether messages that would fail take long instead.
        processes: consumers that run at once in each version.
        kafka: whether it is rolled over Kafka, too.
    """

    kinds: str
    new: str = BASE
    old: str = BASE
    old_settings: Mapping[str, Any] = field(default_factory=dict)
    new_settings: Mapping[str, Any] = field(default_factory=dict)
    elsewhere: tuple[str, str] | None = None
    processes: int = 1
    slow: bool = False
    kafka: bool = False


_WITHOUT_AUDIT = BASE.replace(_AUDIT, "")
_AUDIT_ALONE = BASE[BASE.index("message OrderBilled") : BASE.index("service Orders")] + _AUDIT
_ALIAS = changed(
    BASE,
    'message OrderPaid {\n  option (protoflow.v1.message).topic = "orders";',
    'message OrderPaid {\n  option (protoflow.v1.message) = '
    '{ topic: "orders" aliases: "legacy.OrderPaid" };',
)  # fmt: skip
_THREE = changed(BASE, _RETRY, _FEW)
_DROP = "dead_letter: { on_exhausted: ON_EXHAUSTED_DROP }"
_BLOCK = "dead_letter: { on_exhausted: ON_EXHAUSTED_BLOCK }"
_TYPE = changed(
    BASE,
    'message OrderPaid {\n  option (protoflow.v1.message).topic = "orders";',
    'message OrderPaid {\n  option (protoflow.v1.message) = { topic: "orders" type: "paid" };',
)
_RENAMED = changed(BASE, "OrderPaid", "PaymentTaken")
_UNKEYED = changed(
    BASE,
    "message OrderPaid {\n  option (protoflow.v1.message).topic = \"orders\";\n"
    "  string order_id = 1 [(protoflow.v1.field).partition_key = true];",
    "message OrderPaid {\n  option (protoflow.v1.message).topic = \"orders\";\n"
    "  string order_id = 1;",
)  # fmt: skip
_BROADCAST = changed(
    BASE,
    "rpc Record(OrderBilled) returns (google.protobuf.Empty) {\n"
    "    option (protoflow.v1.consume) = {}",
    "rpc Record(OrderBilled) returns (google.protobuf.Empty) {\n"
    "    option (protoflow.v1.consume) = { broadcast: true }",
)
_ONCE = changed(
    BASE,
    _PAY,
    _PAY.replace("{};", "{ effects: EFFECTS_EXACTLY_ONCE };"),
)
_HANDLED_REFUND = """  rpc Refund(OrderRefunded) returns (google.protobuf.Empty) {
    option (protoflow.v1.consume) = {};
  }
"""
_BILLED_TYPE = changed(
    _AUDIT_ALONE,
    'message OrderBilled {\n  option (protoflow.v1.message).topic = "bills";',
    'message OrderBilled {\n  option (protoflow.v1.message) = '
    '{ topic: "bills" type: "billed" aliases: "shop.v1.OrderBilled" };',
)  # fmt: skip
_SHIPPED = """message OrderShipped {
  option (protoflow.v1.message).topic = "shipments";
  string order_id = 1 [(protoflow.v1.field).partition_key = true];
  int64 n = 2;
}
service Shipping {
  option (protoflow.v1.service).consumer_group = "shipping";
  rpc Ship(OrderShipped) returns (google.protobuf.Empty) {
    option (protoflow.v1.consume) = { %s };
  }
}
"""
_BATCHED = changed(
    BASE,
    "rpc TakePayment(OrderPaid) returns (google.protobuf.Empty) {\n"
    "    option (protoflow.v1.consume) = {}",
    "rpc TakePayment(stream OrderPaid) returns (google.protobuf.Empty) {\n"
    "    option (protoflow.v1.consume) = { batch: { max_messages: 5 max_wait: {nanos: 5000000} } }",
)
_RECORD = """rpc Record(OrderBilled) returns (google.protobuf.Empty) {
    option (protoflow.v1.consume) = {}"""

MUTATIONS: dict[str, Mutation] = {
    # What adds: nothing of it may alarm.
    "nothing": Mutation(kinds=""),
    "comment": Mutation(kinds="", new="// An order.\n" + BASE),
    "field added": Mutation(
        kinds="",
        new=changed(
            BASE, "  string customer_id = 3;", "  string customer_id = 3;\n  bool gift = 5;"
        ),
    ),
    "field removed": Mutation(kinds="", new=changed(BASE, "  string customer_id = 3;\n", "")),
    "field renamed": Mutation(kinds="", new=changed(BASE, "customer_id", "buyer_id")),
    "message added": Mutation(
        kinds="publication.added", new=changed(BASE, "", _REFUND.replace('"orders"', '"refunds"'))
    ),
    "message added to a topic": Mutation(kinds="publication.added", new=changed(BASE, "", _REFUND)),
    "service added": Mutation(
        kinds="publication.added handler.added", new=changed(BASE, "", _SHIPPED % ""), kafka=True
    ),
    "group added to a topic": Mutation(
        kinds="handler.added",
        new=changed(BASE, "", _AUDIT.replace("Audit", "Ledger").replace('"audit"', '"ledger"')),
    ),
    "alias added": Mutation(kinds="type.added.known", new=_ALIAS),
    # Handlers, topics, groups.
    "service added at latest": Mutation(
        kinds="publication.added handler.added.latest",
        new=changed(BASE, "", _SHIPPED % "delivery: { start: START_LATEST }"),
    ),
    "handler of a new type": Mutation(
        kinds="publication.added type.added",
        new=changed(BASE, "", _REFUND, _PAY, _PAY + _HANDLED_REFUND),
        kafka=True,
    ),
    "handler of a type that was skipped": Mutation(
        kinds="type.added.known",
        old=changed(BASE, "", _REFUND),
        new=changed(BASE, "", _REFUND, _PAY, _PAY + _HANDLED_REFUND),
    ),
    "handler removed, message kept": Mutation(
        kinds="type.removed", new=changed(BASE, _PAY, ""), kafka=True
    ),
    "handler removed where unhandled is dead-lettered": Mutation(
        kinds="type.removed.dead_lettered",
        old=_policy("unhandled: UNHANDLED_TYPES_DEAD_LETTER"),
        new=changed(_policy("unhandled: UNHANDLED_TYPES_DEAD_LETTER"), _PAY, ""),
    ),
    "service removed": Mutation(
        kinds="handler.removed", old=changed(BASE, "", _SHIPPED % ""),
        new=changed(BASE, "", (_SHIPPED % "").partition("service")[0]),
    ),
    "method renamed": Mutation(
        kinds="handler.renamed", new=changed(BASE, "rpc TakePayment", "rpc Pay")
    ),
    "service renamed with its group": Mutation(
        kinds="handler.renamed", new=changed(BASE, "service Orders", "service Billing")
    ),
    "topic renamed": Mutation(
        kinds="topic.moved publication.moved",
        new=changed(BASE, 'topic = "orders"', 'topic = "orders.v2"'),
        kafka=True,
    ),
    "topic prefix": Mutation(
        kinds="topic.moved publication.moved",
        new='option (protoflow.v1.file).topic_prefix = "shop.";\n' + BASE,
    ),
    "group renamed": Mutation(
        kinds="group.moved", new=changed(BASE, '"billing"', '"invoicing"')
    ),
    "group of one method": Mutation(
        kinds="group.moved type.removed",
        new=changed(
            BASE,
            _PAY,
            _PAY.replace("{};", '{ consumer_group: "payments" };'),
        ),
    ),
    "broadcast": Mutation(kinds="broadcast.on", new=_BROADCAST, processes=2),
    "no broadcast": Mutation(kinds="broadcast.off", old=_BROADCAST, processes=2),
    "effects exactly once": Mutation(kinds="effects.exactly_once", new=_ONCE),
    "effects at least once": Mutation(kinds="effects.weaker", old=_ONCE),
    "start": Mutation(kinds="start.changed", new=_policy("start: START_LATEST")),
    # Types.
    "alias removed": Mutation(kinds="type.removed", old=_ALIAS, kafka=True),
    "type changed": Mutation(kinds="type.removed type.added type.renamed", new=_TYPE),
    "type changed with an alias": Mutation(
        kinds="type.added type.renamed",
        new=changed(_TYPE, 'type: "paid"', 'type: "paid" aliases: "shop.v1.OrderPaid"'),
    ),
    "message renamed": Mutation(
        kinds="type.removed type.added publication.removed publication.added", new=_RENAMED
    ),
    "message renamed with an alias": Mutation(
        kinds="type.added type.renamed",
        new=changed(
            _RENAMED,
            'message PaymentTaken {\n  option (protoflow.v1.message).topic = "orders";',
            'message PaymentTaken {\n  option (protoflow.v1.message) = '
            '{ topic: "orders" aliases: "shop.v1.OrderPaid" };',
        ),
        kafka=True,
    ),
    "unhandled types are dead-lettered": Mutation(
        kinds="unhandled.dead_lettered", new=_policy("unhandled: UNHANDLED_TYPES_DEAD_LETTER")
    ),
    "unhandled types are skipped": Mutation(
        kinds="unhandled.skipped", old=_policy("unhandled: UNHANDLED_TYPES_DEAD_LETTER")
    ),
    # Order.
    "key moved": Mutation(
        kinds="key.moved",
        new=changed(
            BASE,
            "message OrderPlaced {\n  option (protoflow.v1.message).topic = \"orders\";\n"
            "  string order_id = 1 [(protoflow.v1.field).partition_key = true];",
            "message OrderPlaced {\n  option (protoflow.v1.message).topic = \"orders\";\n"
            "  string order_id = 1;",
            "  string customer_id = 3;",
            "  string customer_id = 3 [(protoflow.v1.field).partition_key = true];",
        ),
        kafka=True,
    ),
    "key moved without order": Mutation(
        kinds="key.moved.unordered",
        old=changed(BASE, "ORDERING_PER_KEY", "ORDERING_NONE"),
        new=changed(
            BASE, "ORDERING_PER_KEY", "ORDERING_NONE",
            "message OrderPlaced {\n  option (protoflow.v1.message).topic = \"orders\";\n"
            "  string order_id = 1 [(protoflow.v1.field).partition_key = true];",
            "message OrderPlaced {\n  option (protoflow.v1.message).topic = \"orders\";\n"
            "  string order_id = 1;",
            "  string customer_id = 3;",
            "  string customer_id = 3 [(protoflow.v1.field).partition_key = true];",
        ),
    ),
    "key removed": Mutation(kinds="key.removed", new=_UNKEYED),
    "key added": Mutation(kinds="key.added", old=_UNKEYED),
    "ordering weaker": Mutation(
        kinds="ordering.weaker", new=changed(BASE, "ORDERING_PER_KEY", "ORDERING_NONE"), kafka=True
    ),
    "ordering by partition, then by key": Mutation(
        kinds="ordering.weaker", old=changed(BASE, "ORDERING_PER_KEY", "ORDERING_PER_PARTITION")
    ),
    "ordering by key, then by partition": Mutation(
        kinds="ordering.stronger", new=changed(BASE, "ORDERING_PER_KEY", "ORDERING_PER_PARTITION")
    ),
    "ordering by key": Mutation(
        kinds="ordering.stronger",
        old=changed(BASE, "ORDERING_PER_KEY", "ORDERING_NONE"),
        kafka=True,
    ),
    "ordering of the file, which one service overrides": Mutation(
        kinds="ordering.stronger", new=_file("ordering: ORDERING_PER_PARTITION"),
        old=(_file("ordering: ORDERING_NONE")),
    ),
    "concurrency in the service": Mutation(
        kinds="concurrency.changed", new=_policy("concurrency: 2")
    ),
    "concurrency in the file": Mutation(kinds="concurrency.changed", new=_file("concurrency: 3")),
    "batches": Mutation(kinds="batch.changed", new=_BATCHED, kafka=True),
    "larger batches": Mutation(
        kinds="batch.changed", old=_BATCHED,
        new=changed(_BATCHED, "max_messages: 5", "max_messages: 9"),
    ),
    "streamed outputs": Mutation(
        kinds="streams.changed",
        new=changed(BASE, "returns (OrderBilled)", "returns (stream OrderBilled)"),
    ),
    "atomic": Mutation(kinds="atomic.on", new=_policy("atomic: true")),
    "not atomic": Mutation(kinds="atomic.off", old=_policy("atomic: true")),
    # Failures.
    "more attempts": Mutation(kinds="retry.more", new=changed(BASE, "1000", "2000")),
    "fewer attempts": Mutation(kinds="retry.fewer", new=_THREE, kafka=True),
    "fewer attempts, dropped": Mutation(
        kinds="retry.fewer.dropped retry.fewer", old=_policy(_DROP), new=_policy(_DROP, _THREE)
    ),
    "fewer attempts in the method": Mutation(
        kinds="retry.fewer", new=_method("retry: {max_attempts: 3}")
    ),
    "an end of retries": Mutation(
        kinds="retry.fewer", new=_method("retry: {max_elapsed: {nanos: 50000000}}")
    ),
    "retries beyond the retention": Mutation(
        kinds="retry.more retry.beyond_retention",
        new=changed(BASE, "max_attempts: 1000", "max_attempts: 400000000"),
    ),
    "shorter waits": Mutation(
        kinds="backoff.changed", new=changed(BASE, "nanos: 30000000", "nanos: 5000000")
    ),
    "timeout": Mutation(kinds="timeout.changed", new=_policy("timeout: {seconds: 5}")),
    "timeout, dropped": Mutation(
        kinds="timeout.shorter.dropped", slow=True, old=_policy(_DROP, _THREE),
        new=_policy(f"{_DROP} timeout: {{nanos: 10000000}}", _THREE),
    ),
    "dead letters elsewhere": Mutation(
        kinds="dead_letter.moved",
        new=_policy('dead_letter: { topic: "{topic}.{group}.failed" }'), kafka=True,
    ),
    "dead letters elsewhere, by the file": Mutation(
        kinds="dead_letter.moved", new=_file('dead_letter: { topic: "{topic}.{group}.bad" }')
    ),
    "exhausted are dropped": Mutation(
        kinds="exhausted.dropped", old=_THREE, new=_policy(_DROP, _THREE), kafka=True
    ),
    "exhausted are kept": Mutation(
        kinds="exhausted.kept", old=_policy(_DROP), new=BASE
    ),
    "exhausted block": Mutation(
        kinds="exhausted.blocked retry.beyond_retention", old=_THREE, new=_policy(_BLOCK, _THREE)
    ),
    "exhausted no longer block": Mutation(
        kinds="exhausted.unblocked", old=_policy(_BLOCK, _THREE), new=_THREE
    ),
    "exhausted no longer block, unordered": Mutation(
        kinds="exhausted.unblocked.unordered",
        old=changed(_policy(_BLOCK, _THREE), "ORDERING_PER_KEY", "ORDERING_NONE"),
        new=changed(_THREE, "ORDERING_PER_KEY", "ORDERING_NONE"),
    ),
    # Publishing.
    "output moved": Mutation(
        kinds="publication.moved",
        old=_WITHOUT_AUDIT,
        new=changed(_WITHOUT_AUDIT, '"bills"', '"invoices"'),
        elsewhere=(_AUDIT_ALONE, changed(_AUDIT_ALONE, '"bills"', '"invoices"')),
    ),
    "output moved, still consumed": Mutation(
        kinds="publication.moved.consumed",
        old=changed(BASE, _RECORD, _RECORD.replace("{}", '{ topic: "bills" }')),
        new=changed(
            BASE, _RECORD, _RECORD.replace("{}", '{ topic: "bills" }'),
            "(protoflow.v1.publish) = {}", '(protoflow.v1.publish) = { topic: "invoices" }',
        ),
    ),
    "output gone, still consumed": Mutation(
        kinds="publication.removed.consumed",
        new=changed(
            BASE, "returns (OrderBilled)", "returns (google.protobuf.Empty)",
            "    option (protoflow.v1.publish) = {};\n", "",
        ),
    ),
    "output gone": Mutation(
        kinds="publication.removed",
        old=_WITHOUT_AUDIT,
        new=changed(
            _WITHOUT_AUDIT, "returns (OrderBilled)", "returns (google.protobuf.Empty)",
            "    option (protoflow.v1.publish) = {};\n", "",
        ),
        elsewhere=(_AUDIT_ALONE, ""),
    ),
    "type of an output": Mutation(
        kinds="type.renamed",
        old=_WITHOUT_AUDIT,
        new=changed(
            _WITHOUT_AUDIT,
            'message OrderBilled {\n  option (protoflow.v1.message).topic = "bills";',
            'message OrderBilled {\n  option (protoflow.v1.message) = '
            '{ topic: "bills" type: "billed" };',
        ),
        elsewhere=(_AUDIT_ALONE, _BILLED_TYPE),
    ),
    "number of a field": Mutation(
        kinds="payload.incompatible",
        new=changed(
            BASE, "message OrderPaid {\n  option (protoflow.v1.message).topic = \"orders\";\n"
            "  string order_id = 1 [(protoflow.v1.field).partition_key = true];\n  int64 n = 2;",
            "message OrderPaid {\n  option (protoflow.v1.message).topic = \"orders\";\n"
            "  string order_id = 1 [(protoflow.v1.field).partition_key = true];\n  int64 n = 9;",
        ),
    ),
    "name of a field in JSON": Mutation(
        kinds="payload.renamed",
        old="option (protoflow.v1.file).encoding = ENCODING_JSON;\n" + BASE,
        new="option (protoflow.v1.file).encoding = ENCODING_JSON;\n"
        + changed(BASE, "int64 n = 2", 'int64 n = 2 [json_name = "number"]'),
    ),
    "encoding": Mutation(
        kinds="encoding.changed",
        new="option (protoflow.v1.file).encoding = ENCODING_JSON;\n" + BASE, kafka=True,
    ),
    "source": Mutation(
        kinds="attributes.changed", new='option (protoflow.v1.file).source = "/shop";\n' + BASE
    ),
    "sensitive": Mutation(
        kinds="sensitive.changed", new=changed(BASE, " [(protoflow.v1.field).sensitive = true]", "")
    ),
    # Settings.
    "namespace": Mutation(kinds="namespace.changed", new_settings={"namespace": "shop"}),
    "another broker": Mutation(kinds="transport.changed", new_settings={"transport": "other"}),
    "ladder": Mutation(kinds="ladder.changed", new_settings={"retry_ladder": (1.0, 60.0)}),
    "attempts by the settings": Mutation(
        kinds="retry.fewer",
        new_settings={"handlers": {"shop.v1.Orders.TakePayment": {"retry": {"max_attempts": 3}}}},
    ),
}  # fmt: skip
