"""The parts of an experiment that say how something is trained: a network, or what learns by batches."""
