"""What a model's answers are worth, and how two models differ; without Spark and MLflow."""
