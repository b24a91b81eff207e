"""`protoflow breaking`: two versions of a contract, found, read and compared."""
