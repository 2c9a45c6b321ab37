"""Run and student files: TOML, validated as a whole, every problem with its place in the file."""
