"""Fitted classifiers as arrays or scikit-learn's own objects, which answer without Spark."""
