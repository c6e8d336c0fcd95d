"""The search: what trials there are, how SparkTrials runs them, and what becomes of the winner."""
