"""Replays of a topic: old messages run through one handler, outside of its group."""

from protoflow.topic_replay.comparison import Comparison as Comparison
from protoflow.topic_replay.comparison import Difference as Difference
from protoflow.topic_replay.entries import Entry as Entry
from protoflow.topic_replay.entries import Result as Result
from protoflow.topic_replay.entries import Status as Status
from protoflow.topic_replay.noise import Noise as Noise
from protoflow.topic_replay.replay import Replay as Replay
from protoflow.topic_replay.transport import ReplayTransport as ReplayTransport
