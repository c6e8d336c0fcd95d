"""The command line: it parses and prints, and calls the other folders."""
