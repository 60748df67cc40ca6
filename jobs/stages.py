"""The stages of a study, each run by one coordinator: what is missing is found, farmed out, and recorded."""

import time
from dataclasses import replace

from ..errors import StoreError
from ..hpc.identity import volumes_spec
from ..hpc.prepare import check_same_volumes, head_path, prepare_volumes
from ..hpc.sweep import check_trials
from ..hpc.trials import prepare_trials, trial_intensities
from ..zarr_store.schema import Status
from ..zarr_store.trials import open_trials
from ..zarr_store.volumes import open_volumes
from .options import StageResult
from .simulation import Simulation
from .stage_runner import StageRunner
from .training import Training


class Coordinator(StageRunner):
    """Runs the stages of one study; holds the study's lock while it is used in a ``with`` block.

    Parameters
    ----------
    config : StudyConfig
    options : RunOptions

    Examples
    --------
    >>> with Coordinator(config, RunOptions()) as coordinator:                    # doctest: +SKIP
    ...     print(coordinator.simulate().line())
    """

    def _check_same(self):
        check_same_volumes(self.study, volumes_spec(self.config))

    # ---- simulate ----------------------------------------------------------------------------------------------

    def simulate(self):
        """Find the fields of the poses that are not done, then make the trials."""
        began = time.monotonic()
        if not head_path(self.study, self.config).exists():
            self._say("simulate", "preparing head, poses and volume store; meshing a new head takes a minute or two")
        prepare_volumes(self.study, self.config)
        volumes = open_volumes(self.study)
        check_trials(self.config, trial_intensities(self.config, volumes.sizes["pose"]))
        total = volumes.sizes["pose"]
        before = int((volumes["status"].values == int(Status.DONE)).sum())
        config = replace(self.config, executor=self._executor_config)  # workers share the memory that a solver may take
        told = Simulation(self.study, config, self._events, self.options, self._farm, self._say).run()
        status = open_volumes(self.study)["status"].values
        done, failed = int((status == int(Status.DONE)).sum()), int((status == int(Status.FAILED)).sum())
        if done + failed < total:
            raise StoreError(
                f"simulating: {total - done - failed} of {total} poses are neither done nor failed after the stage, so "
                "their tasks were lost; logs/simulate.log tells why. The same command solves them again."
            )
        prepare_trials(self.study, self.config)
        self._tell_of_limits(volumes.attrs["notes"])
        seconds = time.monotonic() - began
        return StageResult(
            verb="simulate", unit="poses", done=done - before, skipped=before, failed=failed, seconds=seconds, note=told
        )

    def _tell_of_limits(self, notes):
        limit, asked = notes.get("coil_didt_max"), float(open_trials(self.study)["didt"].max())
        if limit and asked > limit:
            self._say(
                "simulate",
                f"trials ask for up to {asked * 1e-6:.0f} A/µs, but {notes['coil_name']} reaches "
                f"{limit * 1e-6:.0f} by its file; check intensities and motor threshold",
            )

    # ---- encode and train --------------------------------------------------------------------------------------

    def _training(self):
        config = replace(self.config, executor=self._executor_config)
        return Training(self.study, config, self.options, self._farm)

    def encode(self):
        """Train the autoencoders that are not done, and keep their codes."""
        return self._training().encode()

    def train(self):
        """Train the mappers that are not done: cross-validation first where asked for, then the test table."""
        return self._training().train()

    # ---- collect -----------------------------------------------------------------------------------------------

    def collect(self):
        """Build results.zarr from the records."""
        return self._training().collect()

    # ---- report ------------------------------------------------------------------------------------------------

    def _write_report(self):
        from .report import write_report

        return write_report(self.study)
