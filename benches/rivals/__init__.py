"""The rivals' Python interfaces, each in a file that knows how to fill and ask it."""
