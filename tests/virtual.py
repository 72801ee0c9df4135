"""A fresh event loop of virtual time, for coroutines inside a Hypothesis test (`asyncio.run` there leaks pytest-asyncio's loop)."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import looptime

R = TypeVar("R")


def run(body: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """What `body()` returns. Its sleeps take no time; what it leaves running is an error of the test."""
    loop = looptime.new_event_loop()
    try:
        return loop.run_until_complete(body())
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
