"""How a search proposes: by TD3, by CMA-ES over kinds of rows, or by chance."""
