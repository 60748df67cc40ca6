"""Learning: scaling, splits, synergies, autoencoder, mappers, training, scores. Imports nothing of ours but errors."""
