"""The store: commit, catalog, read, verify. fsspec underneath; no torch, no ray."""
