"""From masks to tested tables, and the tables themselves."""
