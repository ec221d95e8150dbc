"""Models as files: which are known, where they are on this disk or on the hub, and whether they are complete."""
