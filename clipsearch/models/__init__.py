"""Models: their files (`disk`), and what turns texts and pictures into vectors (`in_numpy`, `in_torch`)."""
