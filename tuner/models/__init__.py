"""Models: the MLlib pipeline, its JVM-free face, and the folder in which MLflow keeps both."""
