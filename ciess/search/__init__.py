"""The search of Algorithm 1: it proposes sizes, and learns from what fits of them found."""
