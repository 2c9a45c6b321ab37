"""Many students from one store: which ones, trained here or on Ray, and what came of them."""
