"""What a person or a cluster starts: the `softcask` command, one thin file a subcommand."""
