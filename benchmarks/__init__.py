"""Measures Protoflow against raw clients and peers: `python -m benchmarks --help`.

Data goes one way: a subject is one process that prints its figures, the runner runs
subjects in turn and keeps what they print, targets hold figures against limits, and the
report, the plots and the page show that.
"""
