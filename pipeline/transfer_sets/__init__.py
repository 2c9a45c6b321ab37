"""Where the rows that teachers label come from: one file a source, one line in `registry.py`."""
