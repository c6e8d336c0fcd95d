"""Fitted classifiers as stages of an MLlib pipeline: MLlib's own, and scikit-learn's."""
