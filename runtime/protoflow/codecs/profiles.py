"""Metadata besides CloudEvents, for consumers that use other libraries.

Reading needs no profile: messages of Watermill and the Go runtime are always understood.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from protoflow import wire
from protoflow.wire import Profile

#: Returns the metadata of a message to publish, from its id and metadata.
ProfileMetadata: TypeAlias = Callable[[str, Mapping[str, str]], Mapping[str, str]]


def profile_metadata(profile: Profile, type_names: Mapping[str, str]) -> ProfileMetadata | None:
    """Returns a function that adds the profile to metadata; None if the profile adds nothing.

    Watermill gets its UUID, and `name`, by which its CQRS component finds handlers. The Go runtime
    gets `event_message_schema` if `type_names` maps a Go type, `*pkg.Type`, to the protobuf type.
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
