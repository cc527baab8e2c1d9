"""The end of what has made a lab, when somebody wants it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def signals_end_it() -> Iterator[None]:
    """SIGTERM and a closed terminal end the with block as Ctrl-C does; then nothing disturbs the cleaning up."""
    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in watched:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in watched:
            signal.signal(number, signal.SIG_IGN)
