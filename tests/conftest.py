"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# No test times: the first example of any pays for imports, and machines are shared.
settings.register_profile("softcask", deadline=None)
settings.load_profile("softcask")

# Fixtures `s3` and `impatient`: a server that starts when a test first asks for it.
pytest_plugins = ["tests.s3_server"]
