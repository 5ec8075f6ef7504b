"""How much memory is in use, apart from what the allocator keeps for later: only the former shows a leak."""

import ctypes
import math
from functools import cache

FIELDS = (  # of glibc's struct mallinfo2
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"
)  # fmt: skip


class MallInfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


def heap_in_use() -> float:
    """Bytes that malloc has given out, of all arenas and of mappings of their own; NaN where the C library does not
    tell (glibc does since 2.33). Python's own small objects lie in arenas that it takes by mmap, and do not count."""
    ask = _mallinfo2()
    if ask is None:
        return math.nan
    told = ask()
    return float(told.uordblks + told.hblkhd)


@cache
def _mallinfo2():  # type: ignore[no-untyped-def]
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):  # another C library, or none that is loaded by that name
        return None
    ask.restype = MallInfo
    return ask
