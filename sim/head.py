"""The head model: a tetrahedral mesh with a tissue and a conductivity for each element."""

import hashlib
import os
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..errors import InputError, MeshError
from .label_mesh import MeshSizes, mesh_labels
from .labels import read_labels, sphere_labels
from .mesh_quality import boundary_triangles, tet_volumes
from .msh_files import read_msh, write_msh
from .template import COMMENT, HAND_KNOB_MM, KEY, template_labels
from .tissues import conductivity_of


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
        If an element is flat or inverted, a part of the mesh is not connected to the rest, or a value is not finite.

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
        object.__setattr__(self, "tets", oriented(self.nodes, self.tets, self.name))
        check_connected(self.tets, self.nodes, self.name)

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

    @cached_property
    def _boundary(self):
        return boundary_triangles(self.tets)

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
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            name, comment = file["words"].tolist()
            return cls(file["nodes"], file["tets"], file["tissue"], file["conductivity"], name, comment)


def oriented(nodes, tets, name):
    """Elements with positive volumes; refuses flat ones, and meshes of which only some are inverted."""
    if not np.isfinite(nodes).all():
        raise MeshError(f"head {name!r}: node {int(np.argwhere(~np.isfinite(nodes))[0, 0])} is not finite.")
    volumes = tet_volumes(nodes, tets)
    edge = np.linalg.norm(nodes[tets[:, 1]] - nodes[tets[:, 0]], axis=1)
    flat = np.abs(volumes) <= 1e-9 * edge**3
    if flat.any():
        first = int(np.argmax(flat))
        raise MeshError(
            f"head {name!r}: {int(flat.sum())} elements have no volume, first element {first} at "
            f"{_place(nodes, tets[first])} mm; the field in them is undefined. Repair the mesh (in Gmsh: optimize)."
        )
    inverted = volumes < 0
    if inverted.all():
        return np.ascontiguousarray(tets[:, [1, 0, 2, 3]], dtype=np.int32)
    if inverted.any():
        first = int(np.argmax(inverted))
        raise MeshError(
            f"head {name!r}: {int(inverted.sum())} of {len(tets)} elements are inverted, first element {first} at "
            f"{_place(nodes, tets[first])} mm; their stiffness would have the wrong sign, so the field would be wrong "
            "without a warning. Repair the mesh, e.g. in Gmsh with Tools > Reorient mesh, or mesh the head again."
        )
    return np.ascontiguousarray(tets, dtype=np.int32)


def check_connected(tets, nodes, name):
    """Refuse a mesh in several parts: an island has no ground, so the system would be singular."""
    rows = np.repeat(tets[:, 0], 3)
    graph = coo_array((np.ones(3 * len(tets), np.int8), (rows, tets[:, 1:].ravel())), shape=(len(nodes),) * 2)
    parts, label = connected_components(graph, directed=False)
    if parts == 1:
        return
    sizes = np.bincount(label)
    island = int(np.argmin(sizes))
    where = ", ".join(f"{v:.1f}" for v in nodes[label == island].mean(0) * 1e3)
    raise MeshError(
        f"head {name!r}: the mesh is in {parts} parts that share no node; the smallest has "
        f"{sizes[island]} nodes around ({where}) mm. An island has no ground, which makes the system singular. Remove "
        "it, or join it to the head."
    )


def _place(nodes, corner):
    return "(" + ", ".join(f"{v:.1f}" for v in nodes[corner].mean(0) * 1e3) + ")"


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
    if text.endswith((".msh", ".msh.gz")):
        nodes, tets, tissue = read_msh(source)
        return _head(nodes, tets, tissue, conductivities, Path(text).name.split(".")[0], "")
    sizes = sizes or MeshSizes()
    if text == "template":
        volume, comment, name, key = template_labels, COMMENT, "template", KEY
        default_knob = np.array(HAND_KNOB_MM) * 1e-3
    elif text == "sphere":
        volume = sphere_labels() if radii_m is None else sphere_labels(radii_m)
        comment, name, key, default_knob = volume.comment, "sphere", None, volume.top_m()
    elif text.endswith((".nii", ".nii.gz", ".npz")):
        volume = read_labels(source)
        comment, name, key, default_knob = "", Path(text).name.split(".")[0], None, volume.top_m()
    else:
        raise InputError(
            f'head {text!r}: not a head that can be loaded; give "template", "sphere", a .msh or .msh.gz, or a '
            "label volume (.nii, .nii.gz, .npz)."
        )
    knob = default_knob if hand_knob_m is None else np.asarray(hand_knob_m, float)
    nodes, tets, tissue = mesh_labels(volume, sizes, knob, _cache_folder(cache), key)
    return _head(nodes, tets, tissue, conductivities, name, comment)


def _head(nodes, tets, tissue, conductivities, name, comment):
    return Head(nodes, tets, tissue, conductivity_of(tissue, conductivities), name, comment)


def _cache_folder(cache):
    if cache is not None:
        return Path(cache)
    root = os.environ.get("MOTORSWEEP_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "motorsweep"
    return Path(root).expanduser() / "heads"
