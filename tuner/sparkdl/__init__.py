"""What scripts written for sparkdl call beside its featurizer, under its names."""
