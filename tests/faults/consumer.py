"""A consumer in a process of its own: `python -m tests.faults.consumer URL RUN LOG STATUS PACE`.

Every message that it handled is a line in LOG, what its transport did is in `trace-PID.jsonl`
beside; STATUS shows its state every 0.2 s.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

from protoflow import Config, Context, Message, Service
from protoflow.clock import Clock
from protoflow.connection import transport_for
from protoflow.contract.spec import DeliveryPolicy, Ordering, RetryPolicy
from protoflow.testing.broker_traces import RecordedTransport, TraceWriter

DELIVERY = DeliveryPolicy(
    ordering=Ordering.PER_KEY,
    concurrency=16,
    retry=RetryPolicy(max_attempts=3, initial_backoff=0.02, max_backoff=0.05),
)


async def main(url: str, run: str, log: str, status: str, pace: str) -> None:
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    pid = os.getpid()

    async def handle(message: Message, context: Context) -> None:
        order = json.loads(message.payload or b"")
        if float(pace):
            await asyncio.sleep(float(pace))
        if order["mode"] == "always" or (order["mode"] == "once" and context.attempt == 1):
            raise RuntimeError("as asked")
        # One write of one line, so lines of several processes never mix.
        os.write(out, f"{order['key']} {order['seq']} {context.attempt} {pid}\n".encode())

    config = Config(
        transport=url,
        environ={},
        connect_timeout=60,
        shutdown_timeout=10,
        rebalance_drain=5,
        lease=6,
        transport_options=json.loads(os.environ.get("FAULTS_OPTIONS", "{}")),
    )
    trace = TraceWriter(str(Path(log).with_name(f"trace-{pid}.jsonl")))
    transport = RecordedTransport(transport_for(config, Clock()), str(pid), trace, time.monotonic)
    service = Service(config, transport=transport)
    service.register_message_handler("sink", f"{run}.orders", handle, delivery=DELIVERY)

    async def report() -> None:
        while True:
            health = service.health()
            Path(f"{status}.new").write_text(
                json.dumps(
                    {"live": health.live, "ready": health.ready, "problems": health.problems}
                )
            )
            os.replace(f"{status}.new", status)
            await asyncio.sleep(0.2)

    # Stalls the loop, as a handler that blocks does, for longer than the lease.
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(8.4))
    reporting = asyncio.create_task(report())
    await service.run()
    reporting.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:6]))
