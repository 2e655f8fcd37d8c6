"""Arrays whose memory begins or ends at a protected page, so that any access outside is a SIGSEGV."""

import ctypes
import mmap

import numpy as np

PAGE = mmap.PAGESIZE
CANARY = 0xA5

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_FAILED = ctypes.c_void_p(-1).value

_slack = []


def empty(shape, dtype, *, flush="end"):
    """A C-contiguous array that ends (or with ``flush="start"`` begins) at a guard page; both ends have one.

    Between the other end and its guard page there is less than a page of :data:`CANARY`, which
    :func:`check_slack` looks at.
    The memory is never given back: these arrays are for processes that do one thing and end.
    """
    dtype = np.dtype(dtype)
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    pages = -(-max(nbytes, 1) // PAGE) * PAGE
    anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    start = _libc.mmap(None, pages + 2 * PAGE, mmap.PROT_READ | mmap.PROT_WRITE, anonymous, -1, 0)
    if start == _FAILED:
        raise OSError(ctypes.get_errno(), "mmap")
    for guard in (start, start + PAGE + pages):
        if _libc.mprotect(guard, PAGE, 0) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
    memory = np.frombuffer((ctypes.c_uint8 * pages).from_address(start + PAGE), np.uint8)
    memory[:] = CANARY
    first = pages - nbytes if flush == "end" else 0
    _slack.append(memory[:first] if first else memory[nbytes:])
    return memory[first : first + nbytes].view(dtype).reshape(shape)


def copy(array, *, flush="end"):
    """A copy of ``array`` between guard pages."""
    guarded = empty(array.shape, array.dtype, flush=flush)
    guarded[...] = array
    return guarded


def check_slack():
    """Raises if anything was written beside any array made here."""
    for memory in _slack:
        assert (memory == CANARY).all(), "something was written beside an array"
