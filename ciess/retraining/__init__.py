"""From the masks of a search to tested tables (section 2.3)."""
