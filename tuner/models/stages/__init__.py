"""What the transformers of images share: a network and its parameters, and how both are saved."""
