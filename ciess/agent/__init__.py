"""TD3 agents that choose embedding sizes: they know sizes, states and rewards, and no recommender."""
