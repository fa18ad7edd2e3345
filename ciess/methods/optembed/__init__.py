"""OptEmbed: a supernet with row thresholds, then an evolution over sizes."""
