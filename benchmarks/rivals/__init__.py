"""How others keep soft targets: one file each, as published, to be judged beside softcask's codecs."""
