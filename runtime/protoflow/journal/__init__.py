"""The journal: an optional SQLite file with the history of messages and operator actions."""

from protoflow.journal.entries import Event as Event
from protoflow.journal.entries import HandlerMinute as HandlerMinute
from protoflow.journal.entries import MessageEvent as MessageEvent
from protoflow.journal.entries import OperatorAction as OperatorAction
from protoflow.journal.file import JournalError as JournalError
from protoflow.journal.journal import Journal as Journal
from protoflow.journal.journal import acting as acting
from protoflow.journal.reader import JournalReader as JournalReader
