"""`protoflow run`."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import click

from protoflow.cli import logs, settings, supervisor, target
from protoflow.cli.worker_pages import WorkerPages
from protoflow.config import Config
from protoflow.counted import counted
from protoflow.routing.routes import shown_transports
from protoflow.service import Service


@click.command("run")
@click.argument("name", metavar="MODULE[:SERVICE|:HANDLER]")
@settings.connects
@click.option(
    "--workers", type=click.IntRange(1), default=1, help="Number of processes; 1 by default."
)
@click.option("--reload", is_flag=True, help="Restart when a source changes.")
@click.option("--http", type=click.IntRange(1, 65535), help="Port of the HTTP pages.")
@settings.logs_records
@click.option("--parent", type=int, hidden=True)
@click.option("--one-of-many", is_flag=True, hidden=True)
@click.pass_context
def command(ctx: click.Context, /, name: str, workers: int, reload: bool, **options: Any) -> None:
    """Run the service of a module until Ctrl-C or SIGTERM, then drain.

    A second signal cancels the handlers, a third ends the process. Options override the
    environment and the TOML file, but not arguments that the module passes to Config.
    """
    if workers > 1 or reload:
        ctx.exit(_supervise(name, workers, reload, options))
    if options["parent"]:
        supervisor.follow(options["parent"])
    settings.export(options["transport"], options["config_file"])
    if options["http"]:
        os.environ["PROTOFLOW_HTTP_PORT"] = str(options["http"])
    logs.configure(options["log_format"], options["log_level"])
    settings.use_working_directory()
    service = target.load(name)
    if options["one_of_many"]:
        _refuse_memory(service.config)
    click.echo(_summary(service))
    asyncio.run(service.run())


def _supervise(name: str, workers: int, reload: bool, options: dict[str, Any]) -> int:
    if workers > 1 and reload:
        raise click.UsageError("--reload runs one process; leave out --workers")
    if workers > 1 and not hasattr(signal, "SIGKILL"):
        raise click.UsageError(
            "this system cannot ask a process to drain; leave out --workers and start several"
        )
    transport, file = options["transport"], options["config_file"]
    passed = [f"--log-format={options['log_format']}", f"--log-level={options['log_level']}"]
    passed += [f"--transport={transport}"] if transport else []
    passed += [f"--config={file}"] if file else []
    if reload:
        passed += [f"--http={options['http']}"] if options["http"] else []
        return supervisor.run_reloading(name, passed)
    if options["http"]:
        os.environ["PROTOFLOW_HTTP_PORT"] = str(options["http"])
    config = settings.config_of(transport, file)
    if config.origin("transport") != "built in":  # otherwise the module may name it
        _refuse_memory(config)
    passed.append("--one-of-many")
    if not config.http_port:
        return supervisor.run_workers(name, workers, passed)
    with WorkerPages(config, workers) as pages:
        click.echo(f"HTTP on {config.http_host}:{pages.port}, for {workers} workers", err=True)
        return supervisor.run_workers(name, workers, passed, pages.environ)


def _refuse_memory(config: Config) -> None:
    if any(url.scheme == "memory" for url in config.urls):
        raise click.UsageError("memory:// exists in one process; leave out --workers")


def _summary(service: Service) -> str:
    """Returns a one-line summary of the running service."""
    handlers = service.registered
    config = service.config
    pages = f", HTTP on {config.http_host}:{config.http_port}" if config.http_port else ""
    where = shown_transports(config)
    return f"{counted(len(handlers), 'handler')} on {where}{pages}: {', '.join(handlers)}"
