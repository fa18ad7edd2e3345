"""What a run found, for people to read: summaries, tests, a page, figures."""
