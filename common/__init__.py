"""What every step shares: tokenizer, batches, training, checkpoints, sampling, the terminal."""
