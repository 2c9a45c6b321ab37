"""What crosses a store's border: soft targets out as plain Parquet, others' logits in as teachers."""
