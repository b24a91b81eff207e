"""The stream of a topic holds more than the topic's messages: schedules and replays."""

from __future__ import annotations

from protoflow.errors import TransportError
from protoflow.transports.nats.jetstream.api import API
from protoflow.transports.nats.names import JetStreamNames


async def keep_schedules(api: API, names: JetStreamNames, topic: str, *, changes: bool) -> str:
    """Makes the stream keep schedules, if it may be changed. Returns the problem. Raises
    TransportError if this is unknown now."""
    name, waits = names.stream(topic), names.schedules(topic)
    found = await api.stream(name)
    if found is None:
        return "no stream stores it"
    config = found["config"]
    subjects = config.get("subjects") or []
    if config.get("allow_msg_schedules") and waits in subjects:
        return ""
    if not changes:
        return (
            f"stream {name} keeps no delayed messages: publish one with topology mode create,"
            f" or allow message schedules and add subject {waits} with nats stream edit;"
            " docs/security.md describes the risks"
        )
    subjects = [*subjects, *({waits} - {*subjects})]
    wanted = {**config, "subjects": subjects, "allow_msg_schedules": True}
    await api.call(f"STREAM.UPDATE.{name}", wanted)
    return ""


async def keep_replays(api: API, names: JetStreamNames, topic: str, *, changes: bool) -> list[str]:
    """Makes the stream hold the replays of ordered groups, if it may be changed. Returns the
    problem. A missing stream is reported elsewhere."""
    name = names.stream(topic)
    try:
        found = await api.stream(name)
        config = found["config"] if found is not None else {}
        subjects = config.get("subjects") or []
        missing = [subject for subject in names.replays(topic) if subject not in subjects]
        if found is None or not missing:
            return []
        if changes:
            wanted = {**config, "subjects": [*subjects, *missing]}
            await api.call(f"STREAM.UPDATE.{name}", wanted)
            return []
    except TransportError as error:
        return [f"stream {name}: {error}"]
    text = (
        f"stream {name} holds no replays of ordered groups; start once with topology mode create,"
        f" or add {', '.join(missing)} to its subjects with nats stream edit"
    )
    return [text]
