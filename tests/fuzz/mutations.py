"""The fuzzer without a fix: each fault that it once would have shown must be found again.

A mutation takes one fix out of a copy of the runtime, with every guard that stands behind it, by
replacing text. `python -m tests.fuzz --mutations` fuzzes each copy until something is found.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import protoflow

RUNTIME = Path(protoflow.__path__[0])
#: Seconds of CPU within which each is to be found: a busy machine does not count.
LIMIT = 60.0


@dataclass(frozen=True, slots=True)
class Mutation:
    """One fault.

    Attributes:
        name: what happens without the fix.
        changes: file, text and what replaces it; the text is in the file exactly once.
    """

    name: str
    changes: tuple[tuple[str, str, str], ...]

    def apply(self, runtime: Path) -> None:
        """Takes the fix out of a copy of the runtime. Raises ValueError if it is another now."""
        for file, old, new in self.changes:
            path = runtime / file
            text = path.read_text()
            if text.count(old) != 1:
                raise ValueError(f"{self.name}: {file} has {text.count(old)} times: {old!r}")
            path.write_text(text.replace(old, new))


_HOP_STATE = "scheduling/hop_state.py"
_BELIEVED = ("scheduling/arrival.py", "            delivery.own_place\n", "            True\n")
_PLAIN = """    from google.protobuf.json_format import MessageToDict
    return MessageToDict(value)"""
MUTATIONS = (
    Mutation(
        "forged hop state: an infinite attempt",
        (
            _BELIEVED,
            (_HOP_STATE, "        not delivery.own_place\n", "        False\n"),
            (
                _HOP_STATE,
                "return number if math.isfinite(number) and 0.0 <= number <= most else 0.0",
                "return number",
            ),
        ),
    ),
    Mutation(
        "a lone surrogate in the text of an error",
        (
            (
                _HOP_STATE,
                'return text.encode(errors="replace")[:limit]',
                "return text.encode()[:limit]",
            ),
            (
                "codecs/redaction.py",
                "return printable(scrub(text_of(error), evidence, sensitive), _SHOWN)",
                "return scrub(str(error), evidence, sensitive)",
            ),
        ),
    ),
    Mutation(
        "Kafka: the name of a header is not UTF-8",
        (
            (
                "transports/kafka/unreadable_records.py",
                "        if type(result) is FetchResult:",
                "        if False:",
            ),
        ),
    ),
    Mutation(
        "RabbitMQ: a property that is not UTF-8",
        (
            (
                "transports/rabbitmq/reading.py",
                "        return raw.decode(), end\n    except UnicodeDecodeError:",
                "        return raw.decode(), end\n    except KeyError:",
            ),
            (
                "transports/rabbitmq/reading.py",
                "        _read(header, found)\n    except (error, IndexError, ValueError)",
                "        _read(header, found)\n    except (error, IndexError)",
            ),
        ),
    ),
    Mutation(
        "forged hop state: due in the year 9999",
        (
            _BELIEVED,
            (
                _HOP_STATE,
                "    if not delivery.own_place or metadata.get(wire.PF_GROUP) != group:",
                "    if metadata.get(wire.PF_GROUP) != group:",
            ),
            (_HOP_STATE, "math.inf) - now, LONGEST_WAIT)", "math.inf) - now, math.inf)"),
        ),
    ),
    Mutation(
        "log_payloads changes what becomes of a message",
        (
            (
                "middleware/log_messages.py",
                "except Exception as error:",
                "except KeyboardInterrupt as error:",
            ),
            ("codecs/plain.py", "    return _Shown(sensitive).message(value)", _PLAIN),
        ),
    ),
)


def run(seed: int) -> int:
    """Prints how long each takes; 1 if one is not found."""
    missed = 0
    for mutation in MUTATIONS:
        found, seconds = _fuzz(mutation, seed)
        missed += not found
        print(f"{seconds:5.1f} s  {mutation.name}: {found or 'NOT FOUND'}", flush=True)
    return 1 if missed else 0


def _fuzz(mutation: Mutation, seed: int) -> tuple[str, float]:
    """What was found first, and after how long; empty: nothing."""
    with tempfile.TemporaryDirectory() as directory:
        runtime = Path(directory) / "protoflow"
        shutil.copytree(RUNTIME, runtime, ignore=shutil.ignore_patterns("__pycache__"))
        mutation.apply(runtime)
        command = ["-m", "tests.fuzz", "--seconds", str(LIMIT), "--seed", str(seed)]
        paths = os.pathsep.join([directory, str(Path(__file__).parents[2])])
        before = _spent()
        done = subprocess.run(
            [sys.executable, *command],
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = _spent() - before
    if done.returncode not in (0, 1) or done.stderr.startswith("Traceback"):
        raise RuntimeError(done.stderr)
    return "; ".join(done.stdout.splitlines()[1:2]), seconds


def _spent() -> float:
    """The CPU seconds of programs that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
