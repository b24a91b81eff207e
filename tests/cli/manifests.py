"""The schemas of Kubernetes, KEDA and the Prometheus Operator: npm packages, run by node."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from tests import npm

_PACKAGES = (
    "kubernetes-models@4.5.1",
    "@kubernetes-models/keda@0.4.2",
    "@kubernetes-models/prometheus-operator@4.4.4",
)
_VALIDATE = """
const kinds = {
  ...require('kubernetes-models/apps/v1'),
  ...require('kubernetes-models/policy/v1'),
  ...require('@kubernetes-models/keda/keda.sh/v1alpha1'),
  ...require('@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1'),
};
const found = JSON.parse(require('fs').readFileSync(process.argv[2], 'utf8')).map((one) => {
  if (!kinds[one.kind]) return `no schema of ${one.kind}`;
  const made = new kinds[one.kind](one);
  if (made.apiVersion !== one.apiVersion) return `${one.kind} is in ${made.apiVersion}`;
  try { made.validate(); } catch (error) { return error.message; }
  return null;
});
console.log(JSON.stringify(found.filter(Boolean)));
"""


@cache
def installed() -> Path:
    """The folder of the packages; npm fetches them once for an environment."""
    folder = npm.installed("kubernetes", _PACKAGES)
    (folder / "validate.cjs").write_text(_VALIDATE)
    return folder


def mistakes(manifests: list[dict[str, Any]], folder: Path) -> list[str]:
    """What the schemas find wrong in manifests."""
    file = folder / "manifests.json"
    file.write_text(json.dumps(manifests))
    home = installed()
    found: list[str] = json.loads(npm.node(home, [str(home / "validate.cjs"), str(file)], 60))
    return found
