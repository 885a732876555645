"""TFRecords: from bytes to batches of tensors."""
