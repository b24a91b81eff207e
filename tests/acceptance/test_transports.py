"""The shipped suite, run against every transport of the project."""

from protoflow.testing.transports.cases import *  # noqa: F403
