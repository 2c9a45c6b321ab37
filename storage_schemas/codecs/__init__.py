"""Codecs: logits to named columns and back, one file each. The numpy reference of what a store holds."""
