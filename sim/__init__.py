"""Physics: head, coil, pose, finite elements, volumes, firing rate, synthetic responses. Imports nothing of ours but errors."""
