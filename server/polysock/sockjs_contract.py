"""The one place that imports sockjs-tornado, and keeps what it says while it is imported from our users.

Its 1.0.7 release warns of its own decorators (and, on newer Pythons, of its string escapes) on import.  Only the
application contract is taken from it; none of its request handlers is ever mounted.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sockjs.tornado import SockJSConnection

__all__ = ["SockJSConnection"]
