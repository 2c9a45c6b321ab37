"""Care of a store that stands: drop, collect garbage, mend, compare, bring up to date."""
