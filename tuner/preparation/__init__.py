"""What a search makes of its images: index, quarantine, split, and the features that its trials read."""
