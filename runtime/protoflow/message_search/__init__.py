"""What became of one message: the journal and the broker, searched and joined."""

from protoflow.message_search.report import Report as Report
from protoflow.message_search.search import Bounds as Bounds
from protoflow.message_search.search import search_broker as search_broker
from protoflow.message_search.search import search_journal as search_journal
