"""Checks words: one concept has one word, the word of docs/glossary.md.

    scripts/words.py             fails where a replaced word is used more often than allowed
    scripts/words.py --list      prints every use
    scripts/words.py --accept    lowers what is allowed to what is there

Run by `make lint`. `scripts/words_allowed.txt` holds the uses that are still to be replaced, a
count a file. Uses may move between files; their sum may fall and never rise.
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = ROOT / "scripts" / "words_allowed.txt"
PLACES = ("runtime", "protoc_gen_protoflow", "templates", "tests", "examples", "docs", "scripts")
PAGES = ("README.md", "DESIGN.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
SUFFIXES = {".py", ".md", ".j2", ".sh"}
LEFT_OUT = re.compile(r"_pb2\.pyi?$|/gen/|^tests/golden/.*/expected/|^scripts/words")

#: In names, comments, docstrings, texts and pages: the replaced word -> the standard word.
#: A word is compared in lower case and by itself: `bury_letter` holds `bury` and `letter`.
WORDS = {
    "burial": "dead letter", "burials": "dead letters", "buried": "dead-lettered",
    "buries": "dead-letters", "bury": "dead-letter", "burying": "dead-lettering",
    "graveyard": "dead letters", "letter": "dead letter", "letters": "dead letters",
    "mend": "fix", "mended": "fixed", "mending": "fixing", "mends": "fixes",
    "tell": "report, show, name", "telling": "reporting", "tells": "reports", "told": "reported",
    "books": "counters", "spot": "location", "spots": "locations",
    "hasten": "shorten_fetch_wait", "hastens": "shortens", "hastened": "shortened",
    "observatory": "reporter",
}  # fmt: skip

#: `letter` is right after these, and in a line about digits.
DEAD = {"dead", "capital", "case", "lowercase", "other", "small", "upper", "lower", "first", "use"}

#: Names in Python, as they are written: the replaced name -> the standard name.
NAMES = {
    "Architect": "TopologyManager", "Careful": "CrashIsolation", "Declarer": "TopologyManager",
    "Desk": "DeadLetters", "Keeper": "LeaseRenewer", "Look": "TopicScan",
    "Note": "CommitMetadata", "Parts": "Components", "Place": "Location",
    "Planner": "TopologyManager", "Visit": "QueueScan",
    "_hire": "_start_worker", "_look_twice": "_check_before_run", "_look_up": "_notify_waiters",
    "carry_out": "apply_outcome", "collected_rarely": "raised_threshold",
    "defers": "needs_broker_retry", "degrade": "mark_unready",
    "deserted_topics": "unsubscribed_topics", "dress": "apply_profile",
    "put_alone": "put_exclusive", "remembers_failures": "persists_attempts",
    "when_confirmed": "on_confirmed",
}  # fmt: skip

#: In pages only: the phrase -> what is written instead.
PHRASES = {
    "somebody": "the actor: handler, runtime, broker, operator",
    "in silence": "what is logged, and where",
    "can be had": "is available",
    "plainly": "a noun that people search for",
    "stranger": "foreign client",
}


def words_of(text: str) -> list[str]:
    """Returns the words of a text in lower case, those of names by themselves."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", text)
    return re.findall(r"[a-z]+", text.lower())


def uses_in(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yields line, replaced word and standard word for each use in a file."""
    text = path.read_text(encoding="utf-8")
    before = ""
    for number, line in enumerate(text.split("\n"), 1):
        words = words_of(line)
        for word in words:
            is_right = word.startswith("letter") and (before in DEAD or "digits" in words)
            if word in WORDS and not is_right:
                yield number, word, WORDS[word]
            before = word
        if path.suffix == ".md":
            for phrase, standard in PHRASES.items():
                for _ in re.finditer(rf"\b{phrase}", line, re.I):
                    yield number, phrase, standard
    if path.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME and token.string in NAMES:
                yield token.start[0], token.string, NAMES[token.string]


def files() -> Iterator[Path]:
    """Yields the files that are checked."""
    for place in PLACES:
        for path in sorted((ROOT / place).rglob("*")):
            name = str(path.relative_to(ROOT))
            if path.suffix in SUFFIXES and path.is_file() and not LEFT_OUT.search(name):
                yield path
    yield from (ROOT / name for name in PAGES if (ROOT / name).exists())


def allowed() -> Counter[str]:
    """Returns how many uses each file may have."""
    counts = Counter[str]()
    if ALLOWED.exists():
        for line in ALLOWED.read_text(encoding="utf-8").splitlines():
            count, name = line.split(maxsplit=1)
            counts[name] = int(count)
    return counts


def report(path: Path) -> list[str]:
    """Returns a line for each use in a file, its name included."""
    name = str(path.relative_to(ROOT))
    lines = [
        f"{name}:{number}: {word}; the standard word: {standard}"
        for number, word, standard in uses_in(path)
    ]
    before = ""
    for word in words_of(path.stem):
        if word in WORDS and before not in DEAD:
            lines.append(f"{name}: {word} in its name; the standard word: {WORDS[word]}")
        before = word
    return lines


def main(arguments: list[str]) -> int:
    """Runs the check."""
    uses = {str(path.relative_to(ROOT)): report(path) for path in files()}
    counts = Counter({name: len(lines) for name, lines in uses.items() if lines})
    limits = allowed()
    if "--list" in arguments:
        print(*(line for lines in uses.values() for line in lines), sep="\n")
    elif "--accept" in arguments:
        # The file is written for the first time by hand: what is allowed never rises.
        if counts.total() > limits.total():
            print(f"words: {counts.total()} uses, and {limits.total()} are allowed")
            return 1
        text = "".join(f"{count} {name}\n" for name, count in sorted(counts.items()))
        ALLOWED.write_text(text, encoding="utf-8")
    elif counts.total() > limits.total():
        over = [name for name, count in counts.items() if count > limits[name]]
        print(*(line for name in over for line in uses[name]), sep="\n")
        print(f"words: {counts.total()} uses, and {limits.total()} are allowed")
        return 1
    elif counts.total() < limits.total():
        print(f"words: {counts.total()} left of {limits.total()}; run scripts/words.py --accept")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
