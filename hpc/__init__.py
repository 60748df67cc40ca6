"""Where work runs: executors, farm, events and progress, and the stages that run on them."""
