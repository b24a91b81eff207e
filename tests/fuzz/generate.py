"""Random hostile messages, the same for the same seed and batch."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

from protoflow.message import Message

from tests.acceptance.contract import pb
from tests.hostile.table import CE, NUMBERS, TEXTS

#: Stands in sensitive fields only; in no log and in no text of a dead letter.
SECRET = "hunter2-4111"
TOPICS = ("tasks", "things", "notes", "mixed", "reports.eu")
_NAMES = (
    "ce_type", "ce_id", "ce_source", "ce_specversion", "ce_time", "ce_subject", "ce_dataschema",
    "content-type", "Content-Type", "correlation_id", "causation_id", "traceparent", "tracestate",
    "baggage", "message_id", "pf_attempt", "pf_group", "pf_handler", "pf_original_topic",
    "pf_original_partition", "pf_original_offset", "pf_first_failure", "pf_due", "pf_dead_letter",
    "pf_dead_lettered_at", "pf_deliveries", "pf_dlq_resolved", "pf_max_attempts", "pf_traceparent",
    "_watermill_message_uuid", "name", "event_message_schema", "pf_correlation_id", "CC", "BCC",
    "ce_datacontenttype", "pf_key", "pf_tombstone", "pf_encoded", "x-death", "x-delivery-count",
    "Nats-Msg-Id", "Nats-TTL", "Nats-Expected-Stream", "",
)  # fmt: skip
_HOP = tuple(name for name in _NAMES if name.startswith("pf_"))
_WORDS = (
    "", "a", "\0", "ü" * 50, "{}", "%s%n", "%00", "../../etc", "A" * 5000, "suite.v1.Task",
    "*suitev1.Task", "null", '"\\"', "application/json", "true", "\N{GRINNING FACE}", "\x7f",
    "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "00-" + "0" * 32 + "-" + "b" * 16 + "-01",
    *(value for value in TEXTS.values() if isinstance(value, str)),
)  # fmt: skip
_TYPES = (
    "application/protobuf", "application/json", CE, CE + "; charset=utf-16", "text/plain", None,
    "application/cloudevents+protobuf", "application/JSON;charset=x", "application/octet-stream",
    CE.upper(), "a" * 5000, "application/x+json", "application/cloudevents-batch+json",
)  # fmt: skip
_FIELDS = (
    "number", "key", "text", "id", "name", "any", "tree", "amount", "password", "code", "tokens",
    "secrets", "card", "cards", "wallet", "@type", "value", "a",
)  # fmt: skip


class Generator:
    """The messages of one batch.

    Args:
        seed: of the whole run.
        batch: the number of the batch.
        group: the physical group that forged hop state names.
    """

    def __init__(self, seed: int, batch: int, group: str = "") -> None:
        self._random = random.Random(f"{seed}:{batch}")
        self._group = group

    def chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def below(self, limit: int) -> int:
        return self._random.randrange(limit)

    def message(self, topic: str, number: int) -> Message:
        """A message; in four of five cases its type is one that is handled."""
        choice, chance = self._random.choice, self.chance
        metadata: dict[str, str] = {}
        if chance(0.8):
            metadata["ce_type"] = _kind(topic)
        if (content_type := self._content_type(topic)) is not None:
            metadata["content-type"] = content_type
        for _ in range(self.below(5)):
            name = choice(_NAMES) if chance(0.9) else self.text()
            value = choice(list(NUMBERS.values())) if chance(0.5) else self.text()
            metadata[name] = value if isinstance(value, str) else value.decode("latin-1")
        if chance(0.3):
            metadata["pf_group"] = self._group
            metadata[choice(_HOP)] = str(choice(list(NUMBERS.values())))
        return Message(
            id=choice([f"m{number}", f"m{number}", self.text() or "e"]),
            topic=topic,
            payload=self.payload(topic, metadata.get("content-type")),
            key=choice([None, b"", b"k", b"k2", b"\xff\0", b"k" * 3000]),
            metadata=metadata,
        )

    def text(self) -> str:
        if self.chance(0.7):
            return self._random.choice(_WORDS)
        return "".join(chr(self._random.randrange(1, 0x2FFF)) for _ in range(self.below(30)))

    def raw(self, limit: int) -> bytes:
        return self._random.randbytes(self.below(limit))

    def payload(self, topic: str, content_type: str | None) -> bytes | None:
        if self.chance(0.03):
            return None
        if content_type is not None and content_type.lower().startswith(CE):
            return self._changed(self._envelope(topic), 0.1)
        if topic in ("notes", "reports.eu") or content_type == "application/json":
            return self._changed(dumps(self.tree()), 0.15)
        if self.chance(0.1):
            return self.raw(60)
        return self._changed(self.proto(topic), 0.4)

    def proto(self, topic: str) -> bytes:
        """A message of the topic's type, in binary."""
        if topic != "things":
            task = pb.Task(number=self.below(2**31), key="k", secret=SECRET)
            return bytes(task.SerializeToString())
        return bytes(self.thing().SerializeToString())

    def thing(self) -> Any:
        """A message with secrets in every place, and with what is hard to show."""
        thing = pb.Thing(name="n", password=SECRET, code=SECRET.encode(), tokens=[SECRET, ""])
        thing.secrets[SECRET] = SECRET
        thing.card.number = SECRET
        thing.cards.add(number=SECRET)
        thing.wallet["w"].number = SECRET
        if self.chance(0.3):
            inner = pb.Thing(password=SECRET)
            if self.chance(0.5):
                thing.any.Pack(inner)
            else:
                thing.any.type_url, thing.any.value = self._any_type(), self.raw(9)
        if self.chance(0.3):
            thing.amount = self._random.choice([float("nan"), float("inf"), 1e308, -0.0])
            value = thing.tree.fields["a"]
            for _ in range(self.below(40)):
                value = value.struct_value.fields["a"]
            if self.chance(0.7):
                value.number_value = thing.amount
            else:
                value.SetInParent()
        return thing

    def tree(self, depth: int = 0) -> Any:
        """Anything that JSON can hold."""
        chance, choice = self.chance, self._random.choice
        if depth == 0 and chance(0.85):
            return {choice(_FIELDS): self.tree(1) for _ in range(self.below(5))}
        if depth > 4 or chance(0.5):
            numbers = (0, -1, 1e308, 2**70, 10**400, float("inf"), float("nan"), 1.5)
            return choice([self.text(), choice(numbers), choice([True, False, None]), "\ud800"])
        if chance(0.5):
            return [self.tree(depth + 1) for _ in range(self.below(4))]
        return {
            choice(_FIELDS) if chance(0.8) else self.text(): self.tree(depth + 1)
            for _ in range(self.below(4))
        }

    def _content_type(self, topic: str) -> str | None:
        if self.chance(0.6):
            return "application/json" if topic in ("notes", "reports.eu") else _TYPES[0]
        return self._random.choice(_TYPES)

    def _any_type(self) -> str:
        known = ("type.googleapis.com/no.Such", "", "//", "type.googleapis.com/suite.v1.Task", "%")
        return self._random.choice(known)

    def _envelope(self, topic: str) -> bytes:
        choice, chance = self._random.choice, self.chance
        members: dict[str, Any] = {
            "specversion": choice(["1.0", "1.0", "1.0", "1.9", "0.3", 1, None]),
            "id": choice(["x", "x", self.text(), 1, None]),
            "source": choice(["s", self.text(), None, {}]),
            "type": choice([_kind(topic), _kind(topic), "other", self.text(), 5]),
            "datacontenttype": choice(
                ["application/json", "application/protobuf", self.text(), 7, None]
            ),
        }
        if chance(0.6):
            members["data"] = self.tree()
        if chance(0.5):
            packed = base64.b64encode(self.proto(topic)).decode()
            members["data_base64"] = choice(["!!!", "AAAA", 5, "=", self.text(), packed, packed])
        for _ in range(self.below(4)):
            members[choice(_NAMES) if chance(0.7) else self.text()] = self.tree(3)
        if chance(0.3):
            members["pf_group"] = self._group
            members[choice(_HOP)] = choice(list(NUMBERS.values()))
        return dumps(members)

    def _changed(self, data: bytes, probability: float) -> bytes:
        """The bytes, or with so much probability some others in them."""
        if not self.chance(probability):
            return data
        # A secret that moves into another field is none any more.
        changed = bytearray(data.replace(SECRET.encode(), b"x" * len(SECRET)))
        for _ in range(self.below(4) + 1):
            if not changed:
                break
            at = self.below(len(changed))
            match self.below(4):
                case 0:
                    changed[at] = self.below(256)
                case 1:
                    del changed[at : at + 1 + self.below(4)]
                case 2:
                    changed[at:at] = self.raw(6)
                case _:
                    changed[at:at] = changed[max(0, at - 9) : at]
        return bytes(changed)


def dumps(value: Any) -> bytes:
    """As JSON, lone surrogates, infinities and all."""
    return json.dumps(value, default=repr).encode()


def _kind(topic: str) -> str:
    kinds = {"things": "suite.v1.Thing", "reports.eu": "suite.report.v1"}
    return kinds.get(topic, "suite.v1.Task")
