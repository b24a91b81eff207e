"""The raw clients as the subject: parse and count, at least once, in their cheapest way.

`python -m benchmarks.subjects.raw TRANSPORT URL [--shape consume|transform|latency] ...`
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Any

from benchmarks.subjects.messages import event_headers
from benchmarks.subjects.meter import Latencies, Meter
from benchmarks.subjects.options import Options, options
from benchmarks.subjects.ours import load, pacer
from benchmarks.subjects.prefill import jetstream, kafka, proto_body, rabbitmq, redis


class Raw:
    """One subject."""

    def __init__(self, chosen: Options) -> None:
        self.chosen = chosen
        self.meter = Meter(chosen.count, chosen.warm)
        self.latencies = Latencies(chosen.count, chosen.warm)
        self._late = chosen.shape == "latency"
        self.done = self.latencies.done if self._late else self.meter.done

    async def kafka(self) -> None:
        """Batches of 500, a commit for each."""
        from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

        chosen, out = self.chosen, f"{self.chosen.run}.out"
        topic = f"{chosen.run}.orders"
        await kafka(chosen, [topic, out], proto_body, event_headers())
        headers = [(name, value.encode()) for name, value in event_headers().items()]
        consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=chosen.address,
            group_id=f"{chosen.run}.sink",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        producer = AIOKafkaProducer(bootstrap_servers=chosen.address)
        with ExitStack() as beside:
            async with consumer, producer:
                if self._late:
                    beside.enter_context(pacer(chosen, "raw"))
                while not self.done.is_set():
                    batch = await consumer.getmany(timeout_ms=500, max_records=500)
                    records = [record for some in batch.values() for record in some]
                    if chosen.shape == "transform":
                        sent = [
                            await producer.send(out, _handled(record.value), headers=headers)
                            for record in records
                        ]
                        await asyncio.gather(*sent)
                    for record in records:
                        self._seen(record.value)
                    await consumer.commit()

    async def rabbitmq(self) -> None:
        """A callback, 256 prefetched, an acknowledgement for each, after its output."""
        from aio_pika import Message

        chosen = self.chosen
        kind = "application/protobuf"
        name = f"{chosen.run}.raw"
        async with rabbitmq(chosen, name, proto_body, event_headers(), kind) as connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=256)
            queue = await channel.get_queue(name)
            send = channel.default_exchange.publish

            async def handle(message: Any) -> None:
                if chosen.shape == "transform":
                    body = _handled(message.body)
                    output = Message(body, headers=dict(event_headers()), content_type=kind)
                    await send(output, f"{name}.out", mandatory=False)  # as ours: nobody consumes
                self._seen(message.body)
                await message.ack()

            await queue.consume(handle)
            await self._wait()

    async def nats(self) -> None:
        """A callback; nothing is acknowledged."""
        import nats as client

        chosen = self.chosen
        connection = await client.connect(chosen.url)

        async def handle(message: Any) -> None:
            self._seen(message.data)

        await connection.subscribe(
            f"{chosen.run}.orders", queue="sink", cb=handle, pending_msgs_limit=-1
        )
        await connection.flush()
        await self._wait("proto")
        await connection.close()

    async def jetstream(self) -> None:
        """A push consumer, an acknowledgement for each; with outputs, batches of 100 are pulled."""
        from nats.js.api import ConsumerConfig

        chosen = self.chosen
        subject = f"{chosen.run}.orders"
        async with jetstream(chosen, subject, proto_body, event_headers()) as connection:
            if chosen.shape == "transform":
                await self._transform(connection.jetstream(), subject)
                return

            async def handle(message: Any) -> None:
                self._seen(message.data)
                await message.ack()

            await connection.jetstream().subscribe(
                subject,
                durable="raw",
                cb=handle,
                manual_ack=True,
                pending_msgs_limit=-1,
                config=ConsumerConfig(max_ack_pending=1000),
            )
            await self._wait()

    async def _transform(self, stream: Any, subject: str) -> None:
        """All outputs of a batch are published at once."""
        consumer = await stream.pull_subscribe(subject, durable="raw")
        while not self.done.is_set():
            batch = await consumer.fetch(100, timeout=5)
            headers = event_headers()
            await asyncio.gather(
                *(
                    stream.publish(f"{subject}.out", _handled(message.data), headers=headers)
                    for message in batch
                )
            )
            for message in batch:
                self._seen(message.data)
                await message.ack()

    async def redis(self) -> None:
        """Entries by the hundred, acknowledged and deleted together."""
        chosen, name = self.chosen, f"{self.chosen.run}.raw"
        headers = event_headers()
        async with redis(chosen, name, lambda n: {**headers, "p": proto_body(n)}) as client:
            await client.xgroup_create(name, "raw", "0")
            while not self.done.is_set():
                reply = await client.xreadgroup("raw", "one", {name: ">"}, count=100, block=500)
                ids = []
                for id, fields in reply[0][1] if reply else ():
                    self._seen(fields[b"p"])
                    ids.append(id)
                pipeline = client.pipeline(transaction=False)
                await pipeline.xack(name, "raw", *ids).xdel(name, *ids).execute()

    async def _wait(self, kind: str = "") -> None:
        with ExitStack() as beside:
            if self._late:
                beside.enter_context(pacer(self.chosen, "raw"))
            elif kind:
                beside.enter_context(load(self.chosen, kind))
            await self.done.wait()

    def _seen(self, payload: bytes) -> None:
        message = _order.FromString(payload)
        if self._late:
            self.latencies.stamp(message.customer)
        else:
            self.meter.tick()

    def report(self) -> None:
        """Prints the result for the runner."""
        (self.latencies if self._late else self.meter).report()


def _handled(payload: bytes) -> bytes:
    message = _order.FromString(payload)
    handled: bytes = _handled_class(
        order_id=message.order_id, cents=message.cents
    ).SerializeToString()
    return handled


def _classes() -> tuple[Any, Any]:
    from bench.v1.orders_pb2 import Handled, Order

    return Order, Handled


_order, _handled_class = _classes()


async def main(chosen: Options) -> None:
    """Runs the subject of a transport."""
    raw = Raw(chosen)
    await getattr(raw, chosen.transport)()
    raw.report()


if __name__ == "__main__":
    asyncio.run(main(options()))
