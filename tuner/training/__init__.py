"""What it takes to train a Keras network: base and head, augmentation, images, and the epochs; no Spark."""
