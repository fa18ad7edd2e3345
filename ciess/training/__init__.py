"""Training of a recommender under a mask."""
