"""Learning a batch at a time: rows streamed from a file, what learns them, and what is kept of it."""
