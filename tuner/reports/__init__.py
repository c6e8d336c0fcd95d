"""What is drawn and written of results, and logged to MLflow."""
