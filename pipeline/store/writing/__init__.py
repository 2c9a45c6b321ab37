"""From rows and logits to committed units and sealed generations."""
