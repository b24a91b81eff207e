"""One message: the places where it was looked for, and what is known of it."""

from __future__ import annotations

from protoflow.errors import CapabilityError, DeadLetterNotFoundError, TransportError
from protoflow.web.api.dead_letters import shown
from protoflow.web.host import Findings, Host, SearchedPlace
from protoflow.web.request import Request
from protoflow.web.response import Response, as_json


async def message(host: Host, request: Request) -> Response:
    """What is known of a message, and where it was looked for."""
    request.given(frozenset())
    id = request.parameters["id"]
    findings = [await _dead_letters(host, id), *[await search(id) for search in host.searches]]
    places = [place for one in findings for place in one.places]
    events = [event for one in findings for event in one.events]
    return as_json(
        {
            "id": id,
            "found": any(place.found for place in places),
            "places": [
                {
                    "place": place.place,
                    "searched": place.searched,
                    "found": place.found,
                    "detail": place.detail,
                }
                for place in places
            ],
            "events": sorted(events, key=lambda event: str(event.get("time", ""))),
            "dead_letters": [row for one in findings for row in one.dead_letters],
        }
    )


async def _dead_letters(host: Host, id: str) -> Findings:
    """Looks for a message among the dead letters of the handlers."""
    places, rows = [], []
    for topic in host.dead_letters.topics:
        name = f"dead letters of {topic}"
        try:
            record = await host.dead_letters.show(topic, id)
        except DeadLetterNotFoundError:
            places.append(SearchedPlace(place=name, searched=True))
        except (CapabilityError, TransportError) as error:
            places.append(SearchedPlace(place=name, searched=False, detail=str(error)))
        else:
            places.append(SearchedPlace(place=name, searched=True, found=True))
            rows.append(shown(topic, record))
    return Findings(places=places, dead_letters=rows)
