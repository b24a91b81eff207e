"""Testing handlers: a real service on the memory transport, in virtual time.

    async def test_a_failed_bill_is_tried_again():
        async with testing.run(Billing(FlakyDatabase())) as service:
            await OrdersEventProducer(service).publish_order_placed(OrderPlaced(order_id="7"))
            await service.settled()
            assert [run.attempt for run in service.runs] == [1, 2]
            assert service.published(OrderBilled) == [OrderBilled(order_id="7")]

If every task waits, time jumps to the next timer, so a backoff of five minutes takes no time.
Virtual time works on the event loop that runs the test, whichever pytest plugin created it.
`protoflow.testing.transports` is the acceptance suite for transports; it needs the extra `testing`.
"""

from protoflow.testing.listener import Listener
from protoflow.testing.service import PATIENCE, Run, TestedService, run
from protoflow.testing.virtual_time import VirtualClock, VirtualTime

__all__ = [
    "PATIENCE",
    "Listener",
    "Run",
    "TestedService",
    "VirtualClock",
    "VirtualTime",
    "run",
]
