"""`protoflow export`: a contract under its settings, as manifests for an orchestrator."""
