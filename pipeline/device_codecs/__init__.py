"""The codecs in torch, on the teacher's or the student's device; tested against the numpy reference."""
