"""Folders and archives of images made into Parquet, on any Hadoop filesystem."""
