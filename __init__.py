"""motorsweep: from TMS coil poses to muscle responses, at the scale of a cluster.

The names below are the public face. They load on first use, so that ``import motorsweep`` stays quick and does not
pull in torch or PETSc.

Examples
--------
>>> import motorsweep
>>> results = motorsweep.open_results("studies/quick")        # doctest: +SKIP
>>> results.nrmse.sel(input="firing_rate").mean("repeat")     # doctest: +SKIP
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "open_results": ".zarr_store.results",
    "open_volumes": ".zarr_store.volumes",
    "open_features": ".zarr_store.features",
    "open_trials": ".zarr_store.trials",
    "open_basis": ".zarr_store.bases",
    "load_head": ".sim.head",
    "Head": ".sim.head",
    "load_coil": ".sim.coil",
    "Coil": ".sim.coil",
    "Pose": ".sim.pose",
    "read_poses": ".sim.pose",
    "grid_poses": ".sim.pose",
    "random_poses": ".sim.pose",
    "FieldSolver": ".sim.solve",
    "SolverConfig": ".sim.solve",
    "VolumeGrid": ".sim.volume",
    "firing_rate": ".sim.firing",
    "build_mapper": ".learn.mappers",
    "build_autoencoder": ".learn.autoencoder",
    "MotorsweepError": ".errors",
}
__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'motorsweep' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__():
    return __all__
