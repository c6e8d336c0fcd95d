"""A fine-tuning from end to end: one training or several with successive halving, and the network kept."""
