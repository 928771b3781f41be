"""`GET /docs`: the vendored Swagger UI, and headers that keep it to this service.

No script or style stands inside the page, so that its policy can forbid all such. Swagger UI draws
with images that are `data:` URLs; nothing else beyond this origin is allowed.
"""

from __future__ import annotations

from pathlib import Path

from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException

_FOLDER = Path(__file__).parent / "swagger"
_FILES = ("swagger-ui-bundle.js", "swagger-ui.css", "start.js")
_HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


async def docs() -> FileResponse:
    """The page."""
    return FileResponse(_FOLDER / "docs.html", headers=_HEADERS)


async def docs_file(name: str) -> FileResponse:
    """A script or style sheet of the page."""
    if name not in _FILES:
        raise HTTPException(404)
    return FileResponse(_FOLDER / name, headers=_HEADERS)
