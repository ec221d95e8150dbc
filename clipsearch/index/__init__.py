"""What an `index` run does with what it finds, and with what it does not find."""
