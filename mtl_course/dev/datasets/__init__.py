"""How the tables in the wheel were made: each ran once, by hand; its result is committed."""
