"""JSON Schemas of bodies and responses, by the names that routes use."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
TEXTS: Schema = {"type": "array", "items": TEXT}
COUNTS: Schema = {"type": "object", "additionalProperties": COUNT}
BY_NAME: Schema = {"type": "object", "additionalProperties": TEXT}
MAYBE_TEXT: Schema = {"type": ["string", "null"]}
MAYBE_COUNT: Schema = {"type": ["integer", "null"], "minimum": 0}
MAYBE_NUMBER: Schema = {"type": ["number", "null"]}
ANYTHING: Schema = {"type": "object"}
#: `mixed`: only some of the workers run; `elsewhere`: no visible process runs it.
STATE: Schema = {"enum": ["running", "paused", "draining", "drained", "mixed", "elsewhere"]}


def _object(_optional: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    """Returns an object schema with exactly these members, all required except optional ones."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in _optional],
        "additionalProperties": False,
    }


def _rows(**properties: Schema) -> Schema:
    return {"type": "array", "items": _object(**properties)}


def _list(name: str) -> Schema:
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}


_FILTER = {
    **dict.fromkeys(("topic", "handler", "group", "error", "error_class", "type", "key"), TEXT),
    "since": {"type": ["string", "number"]},
    "until": {"type": ["string", "number"]},
}
_DEAD_LETTER = {
    "id": TEXT,
    "topic": TEXT,
    "position": TEXT,
    "dead_lettered_at": MAYBE_TEXT,
    "size": COUNT,
    "attempts": {"type": ["integer", "null"]},
    **dict.fromkeys(
        (
            "type", "source", "original_topic", "original_partition", "original_offset", "group",
            "handler", "error_class", "error_type", "error_message",
            "correlation_id", "traceparent",
        ),
        MAYBE_TEXT,
    ),
}  # fmt: skip

_LAG = _rows(
    topic=TEXT,
    group=TEXT,
    waiting={"type": ["integer", "null"]},
    oldest_seconds=MAYBE_NUMBER,
    note=TEXT,
)
_DEAD_LETTER_TOPICS = _rows(
    topic=TEXT,
    waiting=COUNT,
    received=COUNT,
    replayed=COUNT,
    purged=COUNT,
    oldest_at=MAYBE_TEXT,
    newest_at=MAYBE_TEXT,
)

SCHEMAS: dict[str, Schema] = {
    "Problem": {
        "type": "object",
        "description": "RFC 9457 problem details. Some problems have further members.",
        "properties": {
            "type": TEXT,
            "title": TEXT,
            "status": {"type": "integer"},
            "detail": TEXT,
            "code": TEXT,
        },
        "required": ["type", "title", "status", "detail", "code"],
    },
    "Status": _object(("problems",), status={"enum": ["ok", "failing"]}, problems=BY_NAME),
    "HandlerInfos": {
        "type": "array",
        "items": _object(
            name=TEXT, consume_queue=TEXT, publish_queue=TEXT, group=TEXT, stats=ANYTHING
        ),
    },
    "Handler": _object(
        ("types", "policy", "policy_origins", "histogram", "recent_errors"),
        name=TEXT, types=TEXTS, topic=TEXT, group=TEXT, publishes=TEXT, dead_letter_topic=TEXT,
        subscription=TEXT, shares_subscription_with=TEXTS, state=STATE, problems=TEXTS,
        policy=ANYTHING, policy_origins=BY_NAME, in_flight=MAYBE_COUNT,
        in_flight_limit=MAYBE_COUNT, running=MAYBE_COUNT, waiting_retries=MAYBE_COUNT,
        counters=COUNTS, runs=MAYBE_COUNT, run_seconds=MAYBE_NUMBER,
        messages_per_second=MAYBE_NUMBER,
        latency_seconds={
            "oneOf": [
                _object(average=NUMBER, p50=NUMBER, p95=NUMBER, p99=NUMBER, samples=COUNT),
                {"type": "null"},
            ]
        },
        histogram={
            "type": "array",
            "description": "Runs that took at most so long; null is without a bound.",
            "items": _object(seconds=MAYBE_NUMBER, runs=COUNT),
        },
        errors=COUNTS, last_error=TEXT, last_run_at=MAYBE_TEXT,
        recent_errors=_rows(at=MAYBE_TEXT, error=TEXT),
    ),
    "Handlers": _object(handlers=_list("Handler")),
    "Subscription": _object(
        name=TEXT, topic=TEXT, group=TEXT, handlers=TEXTS, state=STATE, in_flight=COUNT,
        running=COUNT, waiting_retries=COUNT,
    ),
    "Process": _object(
        ("seen_at",),
        name=TEXT, host=TEXT, pid={"type": "integer"}, version=TEXT, started_at=MAYBE_TEXT,
        transport=TEXT, namespace=TEXT, ready=FLAG, problems=BY_NAME,
        subscriptions=_list("Subscription"), seen_at=MAYBE_TEXT,
    ),
    "Processes": _object(processes=_list("Process")),
    "Lag": _object(lag=_LAG),
    "Session": _object(
        role={"enum": ["none", "read", "operate"]}, tokens=FLAG, payloads=FLAG, publish=FLAG,
        journal=FLAG, alone=FLAG, version=MAYBE_TEXT,
    ),
    "Login": _object(token=TEXT),
    "Snapshot": _object(
        time=TEXT, processes=_list("Process"), handlers=_list("Handler"), lag=_LAG,
        topics=_DEAD_LETTER_TOPICS,
    ),
    "History": _object(
        recorded=FLAG, note=TEXT,
        minutes={
            "type": "array",
            "items": {
                **_object(time=TEXT, handler=TEXT, runs=COUNT, seconds=NUMBER),
                "additionalProperties": COUNT,
            },
        },
        samples=_rows(
            time=TEXT, in_flight=MAYBE_COUNT, waiting=MAYBE_COUNT, oldest_seconds=MAYBE_NUMBER,
            dead_letters=COUNT, handled=COUNT, retried=COUNT,
        ),
    ),
    "Actions": _object(
        recorded=FLAG, note=TEXT,
        actions=_rows(
            time=MAYBE_TEXT, action=TEXT, target=TEXT, count=COUNT, actor=TEXT, detail=TEXT,
            role=TEXT, address=TEXT, result=TEXT,
        ),
    ),
    "Publication": _object(("key",), type=TEXT, message=ANYTHING, key=TEXT),
    "Published": _object(id=TEXT),
    "Topology": _object(
        nodes={
            "type": "array",
            "items": _object(
                ("group",), id=TEXT, kind={"enum": ["topic", "handler", "dead_letters"]},
                name=TEXT, group=TEXT,
            ),
        },
        edges={
            "type": "array",
            "items": _object(**{
                "kind": {"enum": ["consumes", "publishes", "dead_letters"]},
                "from": TEXT,
                "to": TEXT,
            }),
        },
    ),
    "Contract": _object(
        messages={
            "type": "array",
            "items": _object(
                type=TEXT, proto=TEXT, topic=MAYBE_TEXT, aliases=TEXTS, partition_key=MAYBE_TEXT,
                encoding=MAYBE_TEXT,
                fields={
                    "type": "array",
                    "items": _object(
                        name=TEXT, json_name=TEXT, number=COUNT, type=TEXT, repeated=FLAG,
                        sensitive=FLAG,
                    ),
                },
            ),
        },
        operations={
            "type": "array",
            "items": _object(
                name=TEXT, topic=TEXT, group=TEXT, types=TEXTS, publishes=MAYBE_TEXT,
                published_type=MAYBE_TEXT, batched=FLAG, streams=FLAG, broadcast=FLAG,
                effects=TEXT,
            ),
        },
    ),
    "Settings": _object(
        settings={
            "type": "array",
            "items": _object(name=TEXT, value=TEXT, origin=TEXT, help=TEXT, unit=TEXT),
        },
        capabilities=ANYTHING, versions=BY_NAME,
    ),
    "DeadLetterTopics": _object(topics=_DEAD_LETTER_TOPICS),
    "DeadLetter": _object(
        ("payload", "key", "metadata"),
        **_DEAD_LETTER, payload={}, key=MAYBE_TEXT, metadata=BY_NAME,
    ),
    "DeadLetters": _object(dead_letters=_list("DeadLetter"), next_cursor=MAYBE_TEXT),
    "DeadLetterSummary": _object(
        matched=COUNT, complete=FLAG,
        groups={
            "type": "array",
            "items": _object(
                handler=TEXT, error_type=TEXT, count=COUNT, first_at=MAYBE_TEXT,
                last_at=MAYBE_TEXT,
            ),
        },
    ),
    "Filter": _object(tuple(_FILTER), **_FILTER),
    "Change": _object(
        ("ids", "all", "filter", "dry_run"), ids=TEXTS, all=FLAG,
        filter={"$ref": "#/components/schemas/Filter"}, dry_run=FLAG,
    ),
    "Replay": _object(
        ("ids", "all", "filter", "dry_run", "to_origin", "reprocess"), ids=TEXTS, all=FLAG,
        filter={"$ref": "#/components/schemas/Filter"}, dry_run=FLAG, to_origin=FLAG,
        reprocess=FLAG,
    ),
    "Changed": _object(
        ("samples",), matched=COUNT, done=COUNT, failed=COUNT, samples=_list("DeadLetter")
    ),
    "Message": _object(
        id=TEXT, known=FLAG, key=MAYBE_TEXT,
        timeline=_rows(
            time=MAYBE_TEXT, event=TEXT, where=TEXT, group=TEXT, attempt=MAYBE_NUMBER,
            detail=TEXT, source=TEXT,
        ),
        groups=_rows(topic=TEXT, group=TEXT, state=TEXT),
        caused_by=MAYBE_TEXT,
        caused=_rows(id=TEXT, time=MAYBE_TEXT, topic=TEXT, type=TEXT, source=TEXT),
        searched=TEXTS, not_searched=TEXTS, dead_letters=_list("DeadLetter"),
    ),
    "Text": TEXT,
    "Document": ANYTHING,
}  # fmt: skip
