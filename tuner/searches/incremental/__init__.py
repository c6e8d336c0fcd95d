"""Learning a batch at a time, from end to end: prepare, stream, validate, test, register; and go on."""
