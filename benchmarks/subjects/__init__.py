"""What is measured: each module is a program that prints its figures as one line of JSON."""
