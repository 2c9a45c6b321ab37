"""Decodes a transfer set once, block by block, so that no teacher and no student decodes it again."""
