"""Networks exported to ONNX: by a process of its own, checked against TensorFlow, and kept in the store."""
