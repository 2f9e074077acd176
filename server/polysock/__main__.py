"""``python -m polysock``: the same as the command ``polysock``."""

from __future__ import annotations

import sys

from .command import main

sys.exit(main())
