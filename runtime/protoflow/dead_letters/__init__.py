"""Dead letters for operators of a service: list, show, replay, purge."""

from protoflow.dead_letters.access import dead_letters_of as dead_letters_of
from protoflow.transport.dead_letters import DeadLetterRecord as DeadLetterRecord
from protoflow.transport.kit.dead_letter_selection import DeadLetterFilter as DeadLetterFilter
from protoflow.transport.kit.dead_letters import DeadLetters as DeadLetters
