"""The experiment file, read and checked."""
