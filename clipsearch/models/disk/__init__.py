"""Models as files: which there are, where they lie on this disk or on the hub, and whether they are whole."""
