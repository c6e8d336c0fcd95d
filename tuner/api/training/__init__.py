"""Calls that train what a search would not, with the words of the command line."""
