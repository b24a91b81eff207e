"""moto's server with a cheaper clock: it asks for the time three times a message of the queue, in
each request, and makes a date of it."""

from __future__ import annotations

import sys
import time

from moto.core import utils
from moto.server import main
from moto.sqs import models


def seconds(*_: object) -> float:
    """What moto's own function returns for now."""
    return time.time()


def milliseconds(*_: object) -> float:
    """What moto's own function returns for now."""
    return time.time() * 1000


assert abs(utils.unix_time() - seconds()) < 5
assert abs(utils.unix_time_millis() - milliseconds()) < 5000
vars(models).update(unix_time=seconds, unix_time_millis=milliseconds)
main(sys.argv[1:])
