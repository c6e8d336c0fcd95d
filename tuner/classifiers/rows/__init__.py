"""The rows of the table of classifiers: what a row is, and those of each library."""
