"""Text as JavaScript source, for the transports that hand frames to a browser as script."""

from __future__ import annotations

import ujson

__all__ = ["javascript_string"]


def javascript_string(text: str) -> str:
    """*text* as a JavaScript string literal, pure ASCII, that is safe inside a script element.

    ``<``, ``>`` and ``&`` become escapes, so no payload can close the element it stands in; escaping all non-ASCII
    covers U+2028 and U+2029, which end a line for JavaScript parsers before ES2019.
    """
    return ujson.dumps(text, ensure_ascii=True, encode_html_chars=True, escape_forward_slashes=False)
