"""A fuzzer of everything that a received message goes through.

    make fuzz ARGS="--messages 1000000 --seed 7"

A seed gives the same messages again; a finding names the seed and the batch that showed it, and
`--batch` runs that one alone.
"""
