"""Metadata beside CloudEvents for the readers of other libraries.

Reading needs no profile: what Watermill and the Go runtime write is always understood.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from protoflow import wire
from protoflow.wire import Profile

#: Returns the metadata of a message to publish, given its id and metadata.
ProfileMetadata: TypeAlias = Callable[[str, Mapping[str, str]], Mapping[str, str]]


def profile_metadata(profile: Profile, type_names: Mapping[str, str]) -> ProfileMetadata | None:
    """Returns what adds the profile to the metadata of messages; None: nothing is added.

    For Watermill that is its UUID, and `name`, by which its CQRS component finds handlers;
    for the Go runtime `event_message_schema`, where `type_names` has a Go type, `*pkg.Type`,
    for the protobuf one.
    """
    if profile is not Profile.WATERMILL:
        return None
    go_types = {ours: theirs for theirs, ours in type_names.items() if theirs.startswith("*")}

    def apply_profile(id: str, metadata: Mapping[str, str]) -> Mapping[str, str]:
        added = {wire.WATERMILL_ID: id}
        if kind := metadata.get(wire.CE_TYPE):
            go_type = go_types.get(kind)
            added[wire.WATERMILL_NAME] = go_type[1:] if go_type else kind
            if go_type:
                added[wire.GO_SCHEMA] = go_type
        return {**added, **metadata, wire.WATERMILL_ID: id}

    return apply_profile
