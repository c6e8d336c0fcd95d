"""Networks as ONNX files: looked at, opened and run by ONNX Runtime, without TensorFlow."""
