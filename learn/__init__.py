"""Learning: scaling, splits, synergies, autoencoder, mappers, training loop, scores. Imports nothing of ours but errors."""
