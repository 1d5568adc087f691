"""What a training will need before it is paid for: memory, FLOPs and time, without a weight being allocated."""
