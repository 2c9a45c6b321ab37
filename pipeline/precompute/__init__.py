"""The whole job: a run's config in, a sealed store out."""
