"""How recordings are cleaned: the choices of `motorsweep.sim.cleaning`."""

from dataclasses import dataclass, field

from ..errors import InputError
from .artefact_rules import ArtefactRules

EMG_KINDS = ("raw", "rectified", "envelope")
FAULTY = ("interpolate", "drop")
REFERENCES = ("as recorded", "average")
GAPS = ("longest", "refuse")


@dataclass(frozen=True, kw_only=True)
class CleaningConfig:
    """How recordings are cleaned.

    Parameters
    ----------
    band_hz : (low, high)
        Band of the EEG, 0 leaves a side open.
    emg_band_hz : (low, high)
        Band of the EMG. The upper side is open as it comes: autoregressions of a signal whose upper band was emptied
        are nearly singular, and Granger causality is then far from what it was (Barnett & Seth, J. Neurosci. Methods
        201 (2011) 404-419).
    notch_hz : float
        Mains frequency, 50 or 60; 0 for no notch. Harmonics within the band are notched too.
    notch_width_hz : float
        Width of each notch.
    emg : str
        "raw", "rectified" (modulus, mean taken off) or "envelope" (modulus, then low-pass).
    envelope_hz : float
        Edge of that low-pass.
    reference : str
        "as recorded", or "average" over the usable EEG channels, which costs a rank.
    faulty : str
        What becomes of faulty channels: "interpolate" (EEG by spherical splines from 10-20 positions, which costs a
        rank each; a faulty EMG channel is an error) or "drop" (left out of the arrays, EEG and EMG).
    gaps : str
        Where samples are missing: "longest" keeps the longest stretch without, "refuse" is an error.
    shortest_s : float
        Shortest stretch that is worth keeping, s.
    ica : bool
        Take artefact components out of the EEG.
    ica_rate_hz, ica_iterations : float, int
        Components are looked for at about this rate, in at most so many iterations.
    most_removed : int
        No more components than this are taken out: the strongest of those that the rules name.
    rules : ArtefactRules
        When a component is an artefact.
    seed : int
        Of the components' start.
    """

    band_hz: tuple[float, float] = (1.0, 45.0)
    emg_band_hz: tuple[float, float] = (20.0, 0.0)
    notch_hz: float = 50.0
    notch_width_hz: float = 2.0
    emg: str = "raw"
    envelope_hz: float = 10.0
    reference: str = "as recorded"
    faulty: str = "interpolate"
    gaps: str = "longest"
    shortest_s: float = 2.0
    ica: bool = True
    ica_rate_hz: float = 250.0
    ica_iterations: int = 100
    most_removed: int = 6
    rules: ArtefactRules = field(default_factory=ArtefactRules)
    seed: int = 0

    def __post_init__(self):
        for name, choices in (("emg", EMG_KINDS), ("faulty", FAULTY), ("reference", REFERENCES), ("gaps", GAPS)):
            if getattr(self, name) not in choices:
                raise InputError(
                    f"cleaning: {name} = {getattr(self, name)!r} is not known, so it is unclear what to do. "
                    f"Choose one of {', '.join(choices)}."
                )
        for name, least in (
            ("shortest_s", 0),
            ("ica_rate_hz", 100),
            ("ica_iterations", 1),
            ("most_removed", 0),
            ("seed", 0),
        ):
            if not getattr(self, name) >= least:
                raise InputError(f"cleaning: {name} = {getattr(self, name)} means nothing. Give {least} or more.")
        if not self.envelope_hz > 0:
            raise InputError(
                f"cleaning: envelope_hz = {self.envelope_hz} leaves no low-pass, and so no envelope. Give a frequency "
                'above 0, or emg = "rectified".'
            )
