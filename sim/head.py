"""The head model: a tetrahedral mesh with a tissue and a conductivity for each element."""

import hashlib
import logging
import os
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import InputError, MeshError
from .label_mesh import MeshSizes, mesh_labels
from .labels import read_labels, sphere_labels
from .mesh_checks import ApartError, check_arrays, check_extent, check_topology, oriented, without_strays
from .mesh_quality import tet_volumes
from .msh_files import read_msh, write_msh
from .template import COMMENT, HAND_KNOB_MM, KEY, template_labels
from .tissues import conductivity_of
from .volume_files import read_arrays

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Head:
    """A head mesh.

    Parameters
    ----------
    nodes : ndarray (n, 3), m
    tets : ndarray (m, 4) int32, positively oriented
    tissue : ndarray (m,) int16, tags of `motorsweep.sim.tissues`
    conductivity : ndarray (m,), S/m
    name : str
    comment : str
        What a reader of a result should know of this head.

    Raises
    ------
    MeshError
        If an element is flat, inverted or there twice, elements overlap, parts of the mesh share no face or have
        borders whose nodes are not merged, or a value is not finite: see `motorsweep.sim.mesh_checks`.

    Examples
    --------
    >>> head = load_head("sphere")                                                # doctest: +SKIP
    >>> head.nodes.shape                                                          # doctest: +SKIP
    """

    nodes: np.ndarray = field(repr=False)
    tets: np.ndarray = field(repr=False)
    tissue: np.ndarray = field(repr=False)
    conductivity: np.ndarray = field(repr=False)
    name: str = "head"
    comment: str = ""

    def __post_init__(self):
        checked = check_arrays(self.nodes, self.tets, self.tissue, self.conductivity, self.name)
        for key, array in zip(("nodes", "tets", "tissue", "conductivity"), checked):
            object.__setattr__(self, key, array)
        object.__setattr__(self, "tets", oriented(self.nodes, self.tets, self.name))
        object.__setattr__(self, "_boundary", check_topology(self.nodes, self.tets, self.name))

    @cached_property
    def id(self):
        """Content hash: 16 hex digits of what can change a field; nodes count to 1 nm, so that files in mm keep it."""
        digest = hashlib.sha256()
        for array, kind in (
            (np.round(self.nodes * 1e9), "<i8"),
            (self.tets, "<i4"),
            (self.tissue, "<i2"),
            (self.conductivity, "<f8"),
        ):
            digest.update(str(array.shape).encode() + np.ascontiguousarray(array, dtype=kind).tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def volumes(self):
        """Volume of each element, (m,) m³."""
        return tet_volumes(self.nodes, self.tets)

    def scalp(self):
        """Outer surface of the mesh.

        Returns
        -------
        ndarray (k, 3)
            Node indices of the boundary triangles, normals outward.
        """
        return self._boundary

    def save_msh(self, path):
        """Write a binary Gmsh 2.2 mesh (mm) that SimNIBS and Gmsh open."""
        write_msh(path, self.nodes, self.tets, self.tissue)

    def save(self, path):
        """Write all of the head to an ``.npz``, beside and then renamed, so that no reader sees half of it."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".npz")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(
                    file,
                    nodes=self.nodes,
                    tets=self.tets,
                    tissue=self.tissue,
                    conductivity=self.conductivity,
                    words=np.array([self.name, self.comment]),
                )
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path):
        """Read what `save` wrote.

        Raises
        ------
        MeshError
            If the file is damaged.
        """
        try:
            arrays = read_arrays(path, ("nodes", "tets", "tissue", "conductivity", "words"))
            name, comment = (str(word) for word in arrays.pop("words").tolist())
            return cls(**arrays, name=name, comment=comment)
        except (TypeError, ValueError, SystemError) as error:
            # SystemError: what numpy raises for text whose bytes are no characters.
            raise MeshError(
                f"{path}: the kept head model cannot be used; delete it, it is made again ({error})"
            ) from error


def load_head(source="template", conductivities=None, *, sizes=None, hand_knob_m=None, cache=None, radii_m=None):
    """Load or make a head model.

    Parameters
    ----------
    source : str or path-like
        ``"template"``: grey and white matter of the MNI ICBM152 maps, other layers grown around them; ``"sphere"``: a
        layered sphere for verification; a SimNIBS/Gmsh 2.2 ``.msh`` or ``.msh.gz``; or a label volume (``.nii``,
        ``.nii.gz``, or ``.npz`` with ``labels`` and ``affine``), which is meshed.
    conductivities : mapping, optional
        Tissue name or tag to S/m, in place of the standard values.
    sizes : MeshSizes, optional
        Edge lengths for heads that are meshed here.
    hand_knob_m : sequence of 3 floats, optional
        Centre of the finely meshed ball, m; by default that of the template, or the top of the head.
    cache : path-like, optional
        Folder in which meshes that are made here are kept, by content. Default: ``$MOTORSWEEP_CACHE/heads``, or
        ``~/.cache/motorsweep/heads``.
    radii_m : sequence of 4 floats, optional
        Outer radii of the sphere's brain, CSF, bone and scalp, m; by default those of `sphere_labels`. For the sphere
        only.

    Returns
    -------
    Head

    Raises
    ------
    MeshError, InputError
        If the source cannot be read or meshed; the message says where and how to mend it.

    Examples
    --------
    >>> head = load_head("template", {"bone": 0.008})                             # doctest: +SKIP
    """
    text = str(source)
    if radii_m is not None and text != "sphere":
        raise InputError(f'head {text!r}: radii_m are those of the layered sphere; leave them out, or load "sphere".')
    if text.lower().endswith((".msh", ".msh.gz")):
        nodes, tets, tissue = read_msh(source)
        check_extent(nodes, text)
        return _of_file(text, nodes, tets, tissue, conductivities)
    sizes = sizes or MeshSizes()
    if text == "template":
        volume, comment, name, key = template_labels, COMMENT, "template", KEY
        default_knob = np.array(HAND_KNOB_MM) * 1e-3
    elif text == "sphere":
        volume = sphere_labels() if radii_m is None else sphere_labels(radii_m)
        comment, name, key, default_knob = volume.comment, "sphere", None, volume.top_m()
    elif text.lower().endswith((".nii", ".nii.gz", ".npz")):
        volume = read_labels(source)
        comment, name, key, default_knob = "", Path(text).name.split(".")[0], None, volume.top_m()
    else:
        raise InputError(
            f'head {text!r}: not a head that can be loaded; give "template", "sphere", a .msh or .msh.gz, or a '
            "label volume (.nii, .nii.gz, .npz)."
        )
    knob = default_knob if hand_knob_m is None else np.asarray(hand_knob_m, float)
    nodes, tets, tissue = mesh_labels(volume, sizes, knob, _cache_folder(cache), key)
    if text in ("template", "sphere"):
        return _head(nodes, tets, tissue, conductivities, name, comment)
    return _of_file(text, nodes, tets, tissue, conductivities)


def _of_file(path, nodes, tets, tissue, conductivities):
    """Head of a user's file, whose name every message must hold."""
    try:
        return _head(nodes, tets, tissue, conductivities, Path(path).name.split(".")[0], "")
    except MeshError as error:
        raise type(error)(f"{path}: {error}") from error


def _head(nodes, tets, tissue, conductivities, name, comment):
    try:
        return Head(nodes, tets, tissue, conductivity_of(tissue, conductivities), name, comment)
    except ApartError:
        nodes, tets, tissue, words = without_strays(nodes, tets, tissue)
        if not words:
            raise
    log.warning("head %s: %s", name, words)
    comment = "; ".join(part for part in (comment, words) if part)
    return Head(nodes, tets, tissue, conductivity_of(tissue, conductivities), name, comment)


def _cache_folder(cache):
    if cache is not None:
        return Path(cache)
    root = os.environ.get("MOTORSWEEP_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "motorsweep"
    return Path(root).expanduser() / "heads"
