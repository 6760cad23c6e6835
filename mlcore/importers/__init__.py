"""Models from outside: torch checkpoints and ONNX files become bundles."""
