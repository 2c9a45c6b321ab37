"""Teachers: one file a kind, and what is checked of the logits that each of them gives."""
