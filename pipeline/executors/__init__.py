"""Where tasks run: in this process, or on Ray. An executor knows nothing of what a task does."""
