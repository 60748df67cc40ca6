"""Physics: head, coil, pose, finite elements, volumes, firing rate, responses. Imports nothing of ours but errors."""
