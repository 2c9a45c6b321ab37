"""From a store and inputs to batches: rows joined, chosen, ordered, replayed, made ahead."""
