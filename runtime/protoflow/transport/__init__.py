"""The interface between the runtime and a broker, for those who write transports."""

from protoflow.config.options import parse_options as parse_options
from protoflow.contract.spec import Ordering as Ordering
from protoflow.contract.spec import Start as Start
from protoflow.transport.dead_letters import DeadLetterRecord as DeadLetterRecord
from protoflow.transport.dead_letters import DeadLetterScan as DeadLetterScan
from protoflow.transport.dead_letters import DeadLetterStore as DeadLetterStore
from protoflow.transport.dead_letters import KeepsDeadLetters as KeepsDeadLetters
from protoflow.transport.interface import Availability as Availability
from protoflow.transport.interface import Capabilities as Capabilities
from protoflow.transport.interface import Isolation as Isolation
from protoflow.transport.interface import Subscription as Subscription
from protoflow.transport.interface import SubscriptionListener as SubscriptionListener
from protoflow.transport.interface import SubscriptionSettings as SubscriptionSettings
from protoflow.transport.interface import Topology as Topology
from protoflow.transport.interface import TopologyMode as TopologyMode
from protoflow.transport.interface import Transaction as Transaction
from protoflow.transport.interface import Transactional as Transactional
from protoflow.transport.interface import Transport as Transport
from protoflow.transport.interface import TransportFactory as TransportFactory
from protoflow.transport.interface import TransportSettings as TransportSettings
from protoflow.transport.lag import Lag as Lag
from protoflow.transport.lag import LagReader as LagReader
from protoflow.transport.topic_reader import TopicReader as TopicReader
from protoflow.transport.topic_reader import TopicRecord as TopicRecord
