"""Stored soft targets in the training loops of others. Each module imports its library when it is used."""
