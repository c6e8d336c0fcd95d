"""Spark: its settings, its start, its sessions and its workers."""
