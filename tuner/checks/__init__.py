"""What is checked before a search counts on it: a cluster's workers."""
