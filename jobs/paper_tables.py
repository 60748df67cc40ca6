"""Tables 1 and 2 of the M2M-Net paper, by (depth, connection), and what it concludes from them."""

PAPER_NRMSE = {
    "e_norm": {
        (3, "direct"): (0.658, 0.042), (3, "synergy"): (0.671, 0.049), (3, "both"): (0.661, 0.048),
        (6, "direct"): (0.644, 0.058), (6, "synergy"): (0.638, 0.053), (6, "both"): (0.630, 0.056),
    },
    "firing_rate": {
        (3, "direct"): (0.519, 0.048), (3, "synergy"): (0.505, 0.041), (3, "both"): (0.500, 0.043),
        (6, "direct"): (0.518, 0.045), (6, "synergy"): (0.516, 0.049), (6, "both"): (0.508, 0.049),
    },
}  # fmt: skip
"""Table 1: mean and standard deviation of the test NRMSE over three repeats, measured responses of one subject."""

PAPER_CRITERIA = {
    (3, "direct"): (1.221e6, -7.266e4), (3, "synergy"): (1.219e6, -7.320e4), (3, "both"): (2.501e6, -7.269e4),
    (6, "direct"): (2.552e6, -7.257e4), (6, "synergy"): (2.550e6, -7.239e4), (6, "both"): (5.164e6, -7.220e4),
}  # fmt: skip
"""Table 2: BIC and AICc, firing rate as the input."""

PAPER_BEST = ("firing_rate", 3, "both")
"""The model that the paper recommends: input, depth, connection."""


def paper_nrmse(kind: str, depth: int, connection: str) -> str:
    """Give a cell of Table 1 as text, "–" where the paper has none.

    Examples
    --------
    >>> paper_nrmse("firing_rate", 3, "both"), paper_nrmse("e_norm", 9, "both")
    ('0.500 ± 0.043', '–')
    """
    found = PAPER_NRMSE.get(kind, {}).get((depth, connection))
    return "–" if found is None else f"{found[0]:.3f} ± {found[1]:.3f}"
