"""The Python API: what the command line does, as functions for other programs and notebooks."""
