"""A generalist and its specialists become one distribution (section 5 of the paper). Arrays in, arrays out.

The same code takes numpy arrays and torch tensors on any device, and needs torch only for the latter.
"""
