"""Pictures of results, searches, masks and sweeps."""
