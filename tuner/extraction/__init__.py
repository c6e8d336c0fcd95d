"""From images to features: each image through each network once, kept in the cache."""
