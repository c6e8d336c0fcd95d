"""A search from end to end: prepare, run the trials, finish the winner; and go on with an earlier one."""
