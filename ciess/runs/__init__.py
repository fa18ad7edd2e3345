"""What a command does in a run directory."""
