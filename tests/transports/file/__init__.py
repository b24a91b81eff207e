"""Tests of the file transport."""
