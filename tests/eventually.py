"""Waiting for a condition, never for a time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


async def eventually(holds: Callable[[], Any], what: str = "", timeout_s: float = 20, every_s: float = 0.005) -> None:
    """Wait until `holds()` is true. Raises AssertionError that names `what`, past `timeout_s`."""
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout_s
    while not holds():
        assert loop.time() < until, f"not within {timeout_s:g} s: {what or holds}"
        await asyncio.sleep(every_s)


async def eventually_async(holds: Callable[[], Awaitable[Any]], what: str = "", timeout_s: float = 20) -> None:
    """As `eventually`, for a condition that has to be asked for."""
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout_s
    while not await holds():
        assert loop.time() < until, f"not within {timeout_s:g} s: {what or holds}"
        await asyncio.sleep(0.02)
