"""`python -m protoflow.cli`, the same as `protoflow`."""

from protoflow.cli import run

if __name__ == "__main__":
    run()
