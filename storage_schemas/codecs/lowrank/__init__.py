"""`lowrank`: a head kept one by one, over a profile that moves along a basis shared by all rows."""
