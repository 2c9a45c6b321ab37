"""How members' opinions become one: a file a rule."""
