"""ESAPN: policies that enlarge embeddings."""
