"""How an eeg study's scores, splits and models are defined, and what does not agree within the paper."""

from .eeg_evidence import EegEvidence
from .eeg_tables import PLANTED

PAPER_WORDS = (
    "R² exceeds r² in 9 of the 12 rows of its Table 3: no prediction does that where R² is about the mean of what is "
    "scored, since r² is the R² of the best straight line through the same points.",
    "MSE divided by MAE is 36 to 51 in that table. That ratio is never above the largest error, so some error must be "
    "at least 36, while its Granger causalities are said to be at most 1.",
    "Its equation 2 has numerator and denominator exchanged: as printed Granger causality is never above 0. Here it is "
    "the logarithm of the smaller model's residual variance over the larger one's.",
    "It names two splits, 80/20 with a tenth of training for validation, and 70/10/20; both deal records, so the same "
    "people train and test. Beside both, a study can leave out subjects here.",
    "It counts four measures in its section 2.3 and five elsewhere; the fifth, a “phase delay index”, is taken to be "
    "the phase lag index (Stam 2007). One muscle is listed twice.",
)
"""What does not agree within the paper."""


def method_words(evidence: EegEvidence) -> list[str]:
    """State how scores, splits and models are defined, and what limits them."""
    unit = {str(each) for each in evidence.results["skill_unit"].values} - {""}
    words = [
        "Skill is 1 − Σ(measured − predicted)² / Σ(measured − mean matrix)² over test records, off the diagonal; the "
        "mean matrix is that of the training records of the same fold. It is 0 for the mean matrix, 1 for a perfect "
        f"prediction, and stands as the mean over {' or '.join(sorted(unit)) or 'unit'}s, which are resampled for the "
        "interval (bootstrap-t, which follows the skew of skills); that training parts of folds overlap is not in it, "
        "so intervals are a little too narrow.",
        "Everything that is fitted (centring, penalties, components, weights, when to stop) sees training and "
        "validation records alone. Where a fold has several test records of one subject, they count as one unit.",
        f"{_network(evidence)} Ridge and PLS see the same matrices; so does stacked ridge, which weighs each measure "
        "on its own scale.",
        "Controls learn from EEG and EMG whose pairing within the training part is shuffled. Their test pairs are the "
        "true ones.",
        "R², MSE, MAE and r are pooled over all entries and records. With the diagonal, whose zeros everybody "
        "predicts, they are what the paper must have computed; R² by entry is about that entry's own mean.",
    ]
    if not evidence.planted:
        words.append(_no_truth(evidence))
    return words


def _no_truth(evidence):
    made = None if evidence.features is None else evidence.features.attrs.get("notes", {}).get("source")
    if made == PLANTED:
        return (
            "These records are planted, but the truth is known of raw EMG alone: the Granger causality of rectified "
            "EMG, or of its envelope, has no closed form."
        )
    return "These records are measured: the true influence of muscles on each other is not known."


def _network(evidence):
    if "network" in evidence.impossible:
        return "The paper's network, which reads the connectivity matrices of the EEG, was not trained."
    n_emg, sizes = evidence.results.sizes["emg_i"], {} if evidence.features is None else evidence.features.sizes
    n_eeg, measures = sizes.get("eeg_i", 19), sizes.get("measure", 5)
    return (
        f"Network: the paper's Table 1, {measures} × {n_eeg} × {n_eeg} to {n_emg} × {n_emg}, trained as its Table 2 "
        "says."
    )
