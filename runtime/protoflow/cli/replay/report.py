"""What a replay prints: failures, captured outputs, differences, and the summary."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import click

from protoflow import wire
from protoflow.cli import records
from protoflow.cli.exits import ExitCode
from protoflow.cli.replay.rest import Rest
from protoflow.cli.replay.versions import Version
from protoflow.codecs.printable import printable
from protoflow.contract.catalog import Catalog
from protoflow.counted import counted
from protoflow.stats.dead_letters import timestamp
from protoflow.topic_replay import Comparison, Difference, Entry, Result, Status
from protoflow.transport import TopicRecord

_LONGEST = 500


class Report:
    """Prints one message after the other, and counts.

    Args:
        versions: the versions of the handler.
        catalog: decodes outputs.
        comparison: compares two versions; None if there is one.
        rest: notes what was not handled.
        shadow: whether outputs were captured.
        as_json: prints JSON.
    """

    def __init__(
        self, versions: list[Version], catalog: Catalog, comparison: Comparison | None,
        rest: Rest, *, shadow: bool, as_json: bool,
    ) -> None:  # fmt: skip
        self._versions = versions
        self._catalog = catalog
        self._comparison = comparison
        self._rest = rest
        self._shadow = shadow
        self._as_json = as_json
        self._statuses: list[Counter[Status]] = [Counter() for _ in versions]
        self._outputs = [0] * len(versions)
        #: Handlers may print; their texts go to stderr, so that only data is here.
        self._out = sys.stdout
        self._on_terminal = sys.stderr.isatty()
        self._messages = 0
        self._different = 0

    @property
    def failed(self) -> int:
        """The number of messages that failed in the first version."""
        return self._statuses[0][Status.FAILED]

    def add(self, entry: Entry) -> None:
        """Counts and prints a message."""
        results = [result for result in entry.results if result is not None]
        for index, result in enumerate(results):
            self._statuses[index][result.status] += 1
            self._outputs[index] += len(result.outputs)
        first = results[0]
        if Status.NOT_RUN not in {result.status for result in results}:
            self._messages += 1
        self._rest.add(entry, first.status)
        if self._comparison is not None:
            self._compare(entry, self._comparison)
            return
        for message in first.outputs:
            self._print_output(entry.record, message)
        if first.status is Status.FAILED:
            self._print_failure(entry.record, first)

    def _compare(self, entry: Entry, comparison: Comparison) -> None:
        found = comparison.of(entry)
        if not found:
            return
        self._different += 1
        where = _where(entry.record)
        if self._as_json:
            rows = [each._asdict() for each in found]
            self._json({"kind": "difference", **where, "differences": rows})
            return
        self._echo(_line(where))
        for each in found:
            self._echo(f"    {_difference(each)}")

    def _print_output(self, record: TopicRecord, message: Any) -> None:
        fields = {
            "topic": message.topic,
            "id": message.id,
            "type": message.metadata.get(wire.CE_TYPE, ""),
            "key": records.key_text(message.key),
            "payload": records.payload(message, self._catalog),
        }
        if self._as_json:
            self._json({"kind": "output", **_where(record), "output": fields})
            return
        payload = fields["payload"]
        text = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)
        kind = fields["type"] or "-"
        self._echo(
            f"{record.position}  {printable(message.topic)}  {printable(kind, _LONGEST)}  "
            f"{printable(fields['key'] or '-', _LONGEST)}  {printable(text, 10_000)}"
        )

    def _print_failure(self, record: TopicRecord, result: Result) -> None:
        where = _where(record)
        if self._as_json:
            error = {
                "class": result.error_class,
                "type": result.error_type,
                "message": result.error_text,
            }
            self._json({"kind": "failure", **where, "error": error})
        else:
            self._echo(f"{_line(where)}  failed: {printable(result.error, _LONGEST)}")

    # The summary.

    def finish(self, *, interrupted: bool, all_read: bool) -> None:
        """Prints the summary.

        Args:
            interrupted: whether Ctrl-C ended the replay.
            all_read: whether every message was read that the options select.
        """
        left = self._rest.places(all_read=all_read)
        comparison = self._comparison
        published = sum(each.transport.published for each in self._versions)
        stray = sum(each.transport.stray for each in self._versions)
        if self._as_json:
            self._json(
                {
                    "kind": "summary",
                    "messages": self._messages,
                    "versions": [self._version(index) for index in range(len(self._versions))],
                    "published": published,
                    "stray": stray,
                    "different": None if comparison is None else self._different,
                    "fields": {} if comparison is None else dict(comparison.fields),
                    "noise": {} if comparison is None else dict(comparison.masked),
                    "left": left,
                    "interrupted": interrupted,
                }
            )
            return
        for index in range(len(self._versions)):
            self._print_version(index, published)
        if stray:
            self._echo(f"{counted(stray, 'message')} published outside of a run, not compared")
        if comparison is not None:
            differ = f"{self._different:,} of {self._messages:,} messages differ"
            self._echo(differ if self._different else f"no difference in {self._messages:,}"
                       f" message{'' if self._messages == 1 else 's'}")  # fmt: skip
            self._print_counts("", comparison.fields)
            self._print_counts("noise, not reported: ", comparison.masked)
        if left and not self._shadow:
            click.echo(f"not handled; continue with --from {','.join(left)}", err=True)
            if self._rest.hides_partitions(all_read=all_read):
                click.echo(
                    "of partitions that are not named, nothing was read: replay them from where "
                    "this replay began",
                    err=True,
                )

    def exit_code(self, *, interrupted: bool) -> ExitCode:
        """Returns the exit code of the command."""
        if interrupted:
            return ExitCode.INTERRUPTED
        if self._comparison is not None:
            return ExitCode.FINDING if self._different else ExitCode.DONE
        return ExitCode.PARTLY if self.failed else ExitCode.DONE

    def _echo(self, text: str) -> None:
        if self._on_terminal:
            click.echo("\r\x1b[K", nl=False, err=True)  # removes the line of progress
        click.echo(text, file=self._out)

    def _json(self, value: Mapping[str, Any]) -> None:
        self._echo(json.dumps(value, ensure_ascii=False, default=str))

    def _print_counts(self, label: str, counts: Mapping[str, int]) -> None:
        ordered = sorted(counts.items(), key=lambda item: -item[1])
        if label and ordered:
            self._echo(label + ", ".join(f"{name} {count:,}" for name, count in ordered))
        elif ordered:
            for name, count in ordered:
                self._echo(f"    {printable(name, _LONGEST)}  {count:,}")

    def _version(self, index: int) -> dict[str, Any]:
        version, statuses = self._versions[index], self._statuses[index]
        return {
            "service": version.target,
            "handler": version.handler,
            **{str(status).replace(" ", "_"): statuses[status] for status in Status},
            "outputs": self._outputs[index],
        }

    def _print_version(self, index: int, published: int) -> None:
        version, statuses = self._versions[index], self._statuses[index]
        parts = [f"{statuses[status]:,} {status}" for status in Status if statuses[status]]
        outputs = self._outputs[index] if self._shadow else published
        verb = "captured" if self._shadow else "published"
        parts.append(f"{counted(outputs, 'output')} {verb}")
        self._echo(f"{version.target} {version.handler}: {', '.join(parts)}")


def _where(record: TopicRecord) -> dict[str, Any]:
    message = record.message
    return {
        "position": record.position,
        "time": timestamp(record.time) or "-",
        "id": message.id,
        "type": message.metadata.get(wire.CE_TYPE, ""),
        "key": records.key_text(message.key),
    }


def _line(where: Mapping[str, Any]) -> str:
    return "  ".join(printable(str(value or "-"), _LONGEST) for value in where.values())


def _difference(found: Difference) -> str:
    name = found.path
    if found.output:
        kind = found.type.rpartition(".")[2] or "-"
        name = f"output {found.output} {kind}  {found.path}"
    return f"{printable(name, _LONGEST)}: {_value(found.old)} -> {_value(found.new)}"


def _value(value: Any) -> str:
    if value == "":
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return printable(text, _LONGEST)
