"""Registered models: versions, their aliases and stages, and who becomes champion."""
