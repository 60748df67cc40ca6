"""What predictors are called, on the dashboard and in reports."""

INPUT_NAMES = {"e_norm": "raw |E|", "firing_rate": "firing rate"}
CONNECTION_NAMES = {"direct": "Direct", "synergy": "Synergy", "both": "Both"}
BASELINE_NAMES = {
    "mean": "Training mean",
    "ridge": "Ridge on the codes",
    "pls": "PLS on the codes",
    "ridge_voxels": "Ridge on the voxels",
    "gp_position": "GP on coil position",
    "response_model": "Response model (ours)",
    "best_possible": "Best possible",
}
FLOOR, CEILING = "best_possible", "mean"
LIMITS = (FLOOR, CEILING)
"""What scores lie between; no predictor to be chosen."""
ANY_INPUT = (CEILING, "gp_position", FLOOR)
"""They never see what the networks see."""
