"""Images in the terminal: detection of its protocol, and drawing with it."""
