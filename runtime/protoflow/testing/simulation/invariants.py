"""The invariants of messages: at least once, outputs, dead letters."""

from __future__ import annotations

from collections.abc import Sequence

from protoflow import wire
from protoflow.counted import counted
from protoflow.message import Action, Message, Settlement
from protoflow.testing.simulation.holds import Holder
from protoflow.testing.simulation.ledger import Ledger, Record
from protoflow.testing.simulation.run_checks import RunChecks
from protoflow.transports.memory.group import Group


class Contract(RunChecks):
    """Checks runs, and as `holds.Witness` also stored data, against the contract."""

    def stored(self, message: Message, sequence: int) -> None:
        """See `holds.Witness`."""
        self._trace.add(self._now(), "broker", "stored", message.id, message.topic)
        if wire.PF_DEAD_LETTER in message.metadata:
            self._dead_lettered(message)
            return
        if (handler := self.failed_outputs.get(message.id)) is not None:
            self._fail(
                "outputs only with success",
                f"an output of a failed run of {handler} was published to {message.topic}",
                message.id,
            )
        self.stored_ids.setdefault(message.id, message)
        for ledger in self.by_topic.get(message.topic, ()):
            ledger.owe(message.id, message.key)

    def _dead_lettered(self, message: Message) -> None:
        named = message.metadata.get
        topic, group = named(wire.PF_ORIGINAL_TOPIC, ""), named(wire.PF_GROUP, "")
        ledger = self.ledgers.get((topic, group))
        record = ledger.records.get(message.id) if ledger is not None else None
        if ledger is None or record is None or ledger.spec is None:
            self._fail(
                "dead letters per group",
                f"its metadata names the unknown group {topic}/{group}",
                message.id,
            )
            return
        if message.topic != ledger.spec.dead_letter_topic:
            text = f"it is in {message.topic}, not in {ledger.spec.dead_letter_topic}"
            self._fail("dead letters per group", text, message.id)
        cause = named(wire.PF_ERROR_CLASS, "")
        attempts = ledger.spec.policy.retry.max_attempts
        if cause == "redelivery limit" and record.deaths < 2:
            self._fail(
                "dead letters per group",
                f"dead-lettered as process killer after {counted(record.deaths, 'death')}",
                message.id,
            )
        elif cause == "exhausted" and record.failures + record.cancelled < attempts:
            self._fail(
                "attempts",
                f"dead-lettered after {counted(record.failures, 'failed run')},"
                f" max_attempts is {attempts}",
                message.id,
            )
        record.dead = True
        self.dead_letters.append(message)

    def deferred(self, group: Group, message: Message) -> None:
        """See `holds.Witness`."""
        self._trace.add(self._now(), "broker", "retry stored", message.id, group.name)
        if (record := self._record(group, message)) is not None:
            record.retries += 1
            attempt = message.metadata.get(wire.PF_ATTEMPT, "")
            # published again: the first confirmation was lost
            record.copies += attempt in record.stored_attempts
            record.stored_attempts.add(attempt)

    def handed_out(self, group: Group, message: Message, holder: Holder) -> None:
        """See `holds.Witness`."""
        self._trace.add(self._now(), holder.name, "delivered", message.id, group.name)
        record = self._record(group, message)
        ledger = self.ledgers.get((group.topic, group.name))
        if record is None or ledger is None or ledger.spec is None or record.copies > 1:
            return
        if ledger.spec.capabilities.atomic and any(
            outputs and not self._missing(outputs) for outputs in record.outputs
        ):
            self._fail("atomic", "delivered again although its outputs were stored", message.id)

    def taken_away(self, group: Group, message: Message) -> None:
        """See `holds.Witness`."""
        self._trace.add(self._now(), "broker", "taken away", message.id, group.name)
        self.disturb(group.topic, group.name)

    def settled(self, group: Group, settlement: Settlement, message: Message) -> None:
        """See `holds.Witness`."""
        action = settlement.action
        wait = f" for {settlement.delay:.3f} s" if settlement.delay else ""
        text = f"{group.name}{wait}"
        self._trace.add(self._now(), "broker", action.name.lower(), message.id, text)
        if action is Action.ACK:
            self._acknowledged(group, message)
        elif action is Action.RELEASE:
            self.disturb(group.topic, group.name)

    def committed(self, group: Group, message: Message) -> None:
        """See `holds.Witness`."""
        self._trace.add(self._now(), "broker", "committed", message.id, group.name)
        self._acknowledged(group, message)

    def disturbed(self, group: Group) -> None:
        """See `holds.Witness`."""
        self.disturb(group.topic, group.name)

    def _acknowledged(self, group: Group, message: Message) -> None:
        record = self._record(group, message)
        if record is None:
            return
        ledger = self.ledgers[group.topic, group.name]
        if not record.done:
            record.retries -= 1  # a stored retry permits one such acknowledgement
        handled = not ledger.types or message.metadata.get(wire.CE_TYPE, "") in ledger.types
        if handled and not record.done and record.retries < 0:
            self._fail(
                "at least once",
                f"acknowledged by {group.name}, though no run succeeded and it is no dead letter",
                message.id,
            )
        missing = [self._missing(outputs) for outputs in record.outputs]
        if record.owes_outputs and all(missing) and not record.dead:
            self._fail(
                "outputs with success",
                f"acknowledged by {group.name} before its output {missing[-1]} was stored",
                message.id,
            )

    def _missing(self, outputs: Sequence[str]) -> str:
        """Returns the id of the first output that is not stored, or an empty string."""
        return next((each for each in outputs if each not in self.stored_ids), "")

    def _record(self, group: Group, message: Message) -> Record | None:
        ledger = self.ledgers.get((group.topic, group.name))
        return ledger.records.get(message.id) if ledger is not None else None

    # At the end.

    def quiescent(self) -> None:
        """Checks at rest that nothing is left to do."""
        for ledger in self.ledgers.values():
            if ledger.spec is None:
                continue
            for message, record in ledger.records.items():
                if not record.done and self._is_owed(ledger, message):
                    self._fail(
                        "at least once",
                        f"group {ledger.group} has neither handled nor dead-lettered it",
                        message,
                    )

    def _is_owed(self, ledger: Ledger, message: str) -> bool:
        stored = self.stored_ids.get(message)
        if stored is None or not ledger.types:
            return stored is not None
        return stored.metadata.get(wire.CE_TYPE, "") in ledger.types
