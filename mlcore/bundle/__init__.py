"""The immutable files of one trained coin: format, writer, ONNX export, predictor."""
