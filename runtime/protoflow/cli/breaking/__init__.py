"""`protoflow breaking`: finds, reads and compares two versions of a contract."""
