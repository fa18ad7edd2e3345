"""How good a model ranks: metrics of every user, under full ranking."""
