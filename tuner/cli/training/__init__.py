"""Commands that train what a search would not: classifiers that learn a batch at a time."""
