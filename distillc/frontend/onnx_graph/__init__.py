"""ONNX graphs as torch modules: reading, operators, and ONNX Runtime as the measure of both."""
