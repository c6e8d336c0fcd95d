"""Models put to work: prediction, export, the SQL function, evaluation on other images."""
