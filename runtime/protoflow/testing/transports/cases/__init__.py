"""The cases of the suite; star-import them into a test module with a fixture `target`."""

import pytest

from protoflow.testing.transports.cases.atomic import *
from protoflow.testing.transports.cases.dead_letters import *
from protoflow.testing.transports.cases.delivery import *
from protoflow.testing.transports.cases.disturbed import *
from protoflow.testing.transports.cases.ending import *
from protoflow.testing.transports.cases.isolation import *
from protoflow.testing.transports.cases.messages import *
from protoflow.testing.transports.cases.order import *
from protoflow.testing.transports.cases.partial import *
from protoflow.testing.transports.cases.reading import *
from protoflow.testing.transports.cases.replays import *
from protoflow.testing.transports.cases.retry import *
from protoflow.testing.transports.cases.services import *
from protoflow.testing.transports.cases.topology import *
from protoflow.testing.transports.cases.trust import *
from protoflow.testing.transports.fixtures import dead as dead
from protoflow.testing.transports.fixtures import harness as harness

pytestmark = pytest.mark.asyncio
