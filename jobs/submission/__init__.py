"""A run as a job of a Ray cluster: what travels, under which name, and how it is followed to its end."""
