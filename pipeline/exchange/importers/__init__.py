"""Formats that others keep logits in, one file each; registered in `registry.py`."""
