"""Where this user's caches lie, for whatever is made anew when it is gone."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def default_cache_folder() -> Path:
    """`$XDG_CACHE_HOME/softcask`, else `~/.cache/softcask`, else one of this user's among the temporary."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    if named and Path(named).is_absolute():
        return Path(named) / "softcask"
    try:
        return Path.home() / ".cache" / "softcask"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"softcask-{os.getuid()}"
