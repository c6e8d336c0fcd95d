"""Classifiers: their parameters, the values that these may take, and the fits that need no Spark."""
