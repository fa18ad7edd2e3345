"""PEP: thresholds learned with the table."""
