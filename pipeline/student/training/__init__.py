"""What `softcask train` does with a student's file: one process, its checkpoints, a result."""
