"""From candles to rows for training: features, labels, the split in time, scaling."""
