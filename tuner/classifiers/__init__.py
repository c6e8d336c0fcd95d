"""Classifiers: their parameters, and the values that these may take."""
