"""Trials: what is proposed, how SparkTrials runs them, and what one does on a worker."""
