"""The files of MLlib's saved models, written without a session."""
