"""Where training starts: fresh, or from what is known in closed form or from a reference."""
