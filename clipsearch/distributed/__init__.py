"""One `index` on many machines, through Ray: the only folder that imports it."""
