"""Models: their files (`disk`), and the code that turns texts and images into vectors (`in_numpy`, `in_torch`)."""
