"""How ONNX Runtime is to multiply 8-bit integers: with exact sums, on every processor."""

from __future__ import annotations

from pathlib import Path

# Instructions that add products of bytes to 32 bits, as Linux names them.
_EXACT = {"avx_vnni", "avx512_vnni", "amx_int8"}


def exact_sums(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Entries of a session's config that keep sums of products from being cut.

    Without such instructions x86 cuts sums of two products to 16 bits; the runtime then has a
    slower way that does not. With them nothing is cut, and the entry would cost AMX its speed.

    Args:
        cpuinfo: where Linux tells of the processor; where there is none, the entry is set.
    """
    try:
        text = cpuinfo.read_text()
    except OSError:
        text = ""
    lines = (line for line in text.splitlines() if line.startswith("flags"))
    flags = set(next(lines, "").split())
    return {} if flags & _EXACT else {"session.x64quantprecision": "1"}
