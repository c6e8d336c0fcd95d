"""Experiment files to begin with: those that come with the package, and one drafted for a folder."""
