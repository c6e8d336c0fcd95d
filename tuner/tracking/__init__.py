"""MLflow's runs: where they are, how they begin and end, and what waits on disk for a lost server."""
