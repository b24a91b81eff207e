"""A unit for systemd: https://www.freedesktop.org/software/systemd/man/latest/systemd.service.html."""

from __future__ import annotations

from pathlib import Path

from protoflow.cli.export.grace import grace_period
from protoflow.config import Config

_UNIT = """\
[Unit]
Description=Protoflow service {target}
After=network-online.target
Wants=network-online.target

[Service]
# The URL of the broker and other secrets: PROTOFLOW_TRANSPORT=... A file with mode 0600.
EnvironmentFile=/etc/{name}/environment
{config}WorkingDirectory=/opt/{name}
ExecStart=/opt/{name}/.venv/bin/protoflow run {target} --log-format json
# SIGTERM drains: running handlers finish, and all other messages go back to the broker.
KillSignal=SIGTERM
TimeoutStopSec={stop}
Restart=on-failure
RestartSec=1
DynamicUser=yes
StateDirectory={name}
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
"""


def unit(name: str, target: str, config: Config, config_file: Path | None) -> str:
    """Returns the unit of a service in `/opt/NAME`."""
    setting = f"Environment=PROTOFLOW_CONFIG=/etc/{name}/protoflow.toml\n" if config_file else ""
    stop = grace_period(config)
    return _UNIT.format(name=name, target=target, config=setting, stop=stop)
