"""What a field may be called: any text that stands in a JSON string as it is.

The structs that read requests are generated from the names, and msgspec takes none that JSON would
have to escape.
"""

from __future__ import annotations

import re

_ESCAPED = re.compile(r'["\\\x00-\x1f\ud800-\udfff]')
RULE = "a name holds no quotation mark, backslash or control character"


def needs_escape(name: str) -> bool:
    """Whether JSON cannot hold a name as it stands."""
    return _ESCAPED.search(name) is not None
