"""`pause`, `resume` and `drain`: operators act on one running process, over HTTP."""
