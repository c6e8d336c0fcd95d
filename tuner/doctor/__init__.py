"""What keeps a search from running on this machine, and what to type against it."""
