"""What is paid outside of messages: generating code and importing it."""

from __future__ import annotations

from benchmarks.model import Form, Group, Subject, Target

#: Plugin -> what a row calls it.
PLUGINS = {
    "protoflow": "ours",
    "mypy": "mypy-protobuf",
    "python": "protoc --python_out",
    "pyi": "protoc --pyi_out",
}


def codegen(form: Form) -> Group:
    """Generating 1, 100 and 500 files, protoc included."""
    subjects: list[Subject] = []
    rows: list[Target] = []
    for files, limit in ((1, 1.2), (100, 1.0), (500, 1.0)):
        names = {plugin: f"{library} {files}" for plugin, library in PLUGINS.items()}
        subjects += [
            Subject(
                "ours" if plugin == "protoflow" else "raw" if plugin != "mypy" else "other",
                name, "codegen", (plugin, str(files)),
            )
            for plugin, name in names.items()
        ]  # fmt: skip
        own, *others = names.values()
        what = f"generating {files} file{'s' if files > 1 else ''}: CPU against"
        rows += [
            Target(
                f"{what} mypy-protobuf", "cpu_ms", (own, others[0]), limit, beside=(*others[1:],)
            ),
            *(
                Target(f"{what} {PLUGINS[plugin]}", "cpu_ms", (own, names[plugin]))
                for plugin in ("python", "pyi")
            ),
        ]  # fmt: skip
    return Group("codegen", "Generating code", subjects, rows)


RUNTIME = "from protoflow import Service, Config, Context, Output"
GENERATED = "import bench.v1.orders_protoflow, bench.v1.orders_pb2"


def imports(form: Form) -> Group:
    """Importing, above a bare interpreter."""
    statements = {
        "ours runtime": RUNTIME,
        "ours generated": f"{RUNTIME}; {GENERATED}",
        "other asyncio": "import asyncio",
        "faststream": "from faststream.kafka import KafkaBroker",
    }
    subjects = [
        Subject(name.split()[0], name, "imports", (statement,))
        for name, statement in statements.items()
    ]
    rows = [
        Target(f"`{RUNTIME}`: CPU above bare Python", "cpu_ms", ("ours runtime",), 65.0),
        Target(
            "the same with a generated module and its _pb2: CPU above bare Python",
            "cpu_ms", ("ours generated",), 100.0,
        ),
        Target(
            "for comparison, `import asyncio`: CPU above bare Python", "cpu_ms", ("other asyncio",)
        ),
        Target(
            "for comparison, `from faststream.kafka import KafkaBroker`: CPU above bare Python",
            "cpu_ms", ("faststream",),
        ),
    ]  # fmt: skip
    return Group("imports", "Importing", subjects, rows, runs=form.count(7, 15))
