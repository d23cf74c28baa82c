"""How the tables in the wheel were made: each runs once, by hand, and its result is committed."""
