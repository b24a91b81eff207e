"""The history of one message, from the journal and the broker."""

from protoflow.message_search.report import Report as Report
from protoflow.message_search.search import Bounds as Bounds
from protoflow.message_search.search import search_broker as search_broker
from protoflow.message_search.search import search_journal as search_journal
