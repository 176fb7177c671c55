"""Images and the like that a prompt shows: kept as a kind and an address, or the hash of their data, never the data."""

from __future__ import annotations

import hashlib
import re
from typing import Any

KINDS = {  # type of a message's part -> what it is
    **dict.fromkeys(("image", "image_url", "input_image"), "image"),
    **dict.fromkeys(("video", "video_url", "input_video"), "video"),
    **dict.fromkeys(("audio", "audio_url", "input_audio"), "audio"),
}
HELD = (  # in the order in which they are looked for
    *("image_url", "video_url", "audio_url", "input_audio", "image", "video", "audio", "source"),
    *("url", "data", "bytes", "path", "file_id"),
)
REFERENCE = re.compile(r"(?:image|video|audio)(?: \S+)?")  # as this module writes them
FILE = re.compile(r"(?:\w+://\S+|[^\s\0]+\.(?:png|jpe?g|webp|gif|bmp|tiff?|mp4|webm|wav|mp3|flac))", re.I)
DATA = re.compile(r"data:(?:image|video|audio)/[\w.+-]+[;,]|iVBORw0KGgo|/9j/|R0lGOD|UklGR")  # or base64 of a known kind
LOOKS = (FILE.fullmatch, DATA.match, REFERENCE.fullmatch)
LONGEST = 200  # characters of an address


def of_part(part: Any) -> str | None:
    """What a part of a message shows ("image https://...", "image sha256:1a2b..."), the kind alone where the data is
    not in it; None for a part that is no picture, film or sound."""
    kind = KINDS.get(str(part.get("type"))) if isinstance(part, dict) else None
    return kind and _named(kind, _inside({k: v for k, v in part.items() if k != "type"}))


def of_column(value: Any) -> tuple[str, ...]:
    """What a column called `image` or `images` holds; () where its values are something else, such as the image of a
    container."""
    values = value if isinstance(value, list) else [value]
    held = [_inside(v) for v in values]
    known = [isinstance(h, bytes) or (isinstance(h, str) and any(p(h) for p in LOOKS)) for h in held]
    return tuple(_named("image", h) for h in held) if held and all(known) else ()


def _inside(value: Any) -> Any:
    """The address or the data in the objects around it."""
    while isinstance(value, dict):
        value = next((value[k] for k in HELD if value.get(k) is not None), None)
    return value


def _named(kind: str, held: Any) -> str:
    if held is None or (isinstance(held, str) and REFERENCE.fullmatch(held)):
        return held or kind
    if isinstance(held, str) and len(held) <= LONGEST and not DATA.match(held):
        return f"{kind} {held}"
    data = held if isinstance(held, bytes) else str(held).rpartition(",")[2].encode(errors="surrogatepass")
    return f"{kind} sha256:{hashlib.sha256(data).hexdigest()[:16]}"
