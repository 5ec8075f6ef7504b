"""How much memory is in use, apart from what the allocator keeps for later: only the former shows a leak."""

import ctypes
import math

FIELDS = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"
)  # fmt: skip


class MallInfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


def heap_in_use() -> float:
    """Bytes that malloc has given out, of all arenas and of mappings of their own; NaN where the C library does not
    tell (glibc does since 2.33). Python's own small objects lie in arenas that it takes by mmap, and do not count."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):  # another C library, or none that is loaded by that name
        return math.nan
    ask.restype = MallInfo
    told = ask()
    return float(told.uordblks + told.hblkhd)
