"""The columns of tables and of a model's answers, from image to class name."""

# Of images.
PATH = "path"
CONTENT = "content"
LABEL_INDEX = "label_index"
PART = "part"
WEIGHT = "weight"  # of a row in a fit, MLlib's weightCol

# Of a pipeline: MLlib's own names, and the class name at its end.
FEATURES = "features"
STEPPED = "stepped"  # features after the step before one of MLlib's classifiers
PREDICTION = "prediction"
PROBABILITY = "probability"
DECISION = "decision"  # in place of probabilities, of classifiers that have none
PREDICTED_LABEL = "predicted_label"

# Of the answer without Spark, beside `prediction` (there the class name) and `probability`.
ERROR = "error"
TOP_K = "top_k"
