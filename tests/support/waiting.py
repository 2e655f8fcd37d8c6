"""Waiting for a condition instead of sleeping for a fixed time."""

import asyncio
import time


def wait_until(condition, seconds=30, every=0.01):
    """Calls ``condition`` until it is true, and returns its value.

    Raises:
        AssertionError: it was not true within that many seconds.
    """
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not true after {seconds} s: {condition}"
        time.sleep(every)
    return found


async def wait_until_async(condition, seconds=30, every=0.001):
    """As :func:`wait_until`, while the event loop goes on."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not true after {seconds} s: {condition}"
        await asyncio.sleep(every)
    return found
