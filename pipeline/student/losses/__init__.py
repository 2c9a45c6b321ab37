"""What a student minimises: a file a loss. Their options are validated without torch."""
