"""Cut-outs of 3-D models from more sides than the assets show, drawn when a pack is made.

Needs the package `vtk` and the folder of catalogues (.sh3f) of Debian's `sweethome3d-furniture`, which the assets' own
renders came from. Neither is needed to train.
"""

import hashlib
import re
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sana_streaming.data.cutouts import centred, write_cutout

VIEWS = 6  # of each model
PITCH = (5.0, 35.0)  # degrees from which it is looked down on
SIDE = 256
LIT, SHADED, GLOSS = 0.4, 0.8, 0.08  # shares of ambient, diffuse and specular light
ORIGIN = re.compile(r"\(([\w-]+), model /(\S+\.obj)")  # catalogue and path, in the assets' list of sources


def pack_views(
    folder: Path, rows: Sequence[dict[str, Any]], sources: dict[str, str], out: Path
) -> list[dict[str, Any]]:
    """More cut-outs like those of `rows` that are for training and whose source names a model.

    sources: file stem -> where the assets have it from. ValueError for a folder without catalogues."""
    catalogues = {path.stem: zipfile.ZipFile(path) for path in sorted(folder.glob("*.sh3f"))}
    if not catalogues:
        raise ValueError(f"expected a folder with catalogues of furniture (.sh3f), got {folder}")
    found = []
    for row in tqdm([row for row in rows if row["split"] == "train"], desc="views"):
        stem = Path(row["file"]).stem
        origin = ORIGIN.search(sources.get(stem, ""))
        if origin is None or origin[1] not in catalogues:
            continue
        seed = int(hashlib.sha256(stem.encode()).hexdigest()[:8], 16)
        with tempfile.TemporaryDirectory() as scratch:
            model = unpack(catalogues[origin[1]], origin[2], Path(scratch))
            pictures = [centred(picture) for picture in views(model, angles(seed))]
        for i, picture in enumerate(pictures):
            if picture is not None:
                file = f"sprites/{stem}_view{i + 1}.webp"
                write_cutout(out / file, picture)
                found.append(row | {"file": file})
    return found


def angles(seed: int) -> list[tuple[float, float]]:
    """Degrees around a model and down on it: all around, in even steps from a random first one."""
    rng = np.random.default_rng(seed)
    first = rng.uniform(0, 360)
    return [(first + i * 360 / VIEWS, rng.uniform(*PITCH)) for i in range(VIEWS)]


def unpack(catalogue: zipfile.ZipFile, path: str, folder: Path) -> Path:
    """The files of a model. The importer forgets all texture coordinates of a part if one corner has none: such corners
    get the first one, which nothing reads."""
    inside = path.rpartition("/")[0] + "/"
    for name in catalogue.namelist():
        if name.startswith(inside) and not name.endswith("/"):
            (folder / Path(name).name).write_bytes(catalogue.read(name))
    model = folder / Path(path).name
    lines = model.read_text(encoding="latin-1").splitlines()
    if any(line.startswith("vt ") for line in lines):
        lines = [" ".join(map(corner, line.split())) if line.startswith("f ") else line for line in lines]
    model.write_text("\n".join(lines) + "\n", encoding="latin-1")
    return model


def corner(text: str) -> str:
    """ "3" -> "3/1", "3//7" -> "3/1/7" """
    place, *rest = text.split("/")
    return text if text == "f" or (rest and rest[0]) else "/".join([place, "1", *rest[1:]])


def views(model: Path, sides: Sequence[tuple[float, float]]) -> list[np.ndarray]:
    """A model (.obj, its .mtl and textures beside it) seen from some sides -> BGRA uint8 [SIDE, SIDE, 4] each."""
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)  # it tells of every texture that a model lacks
    window, renderer = vtk.vtkRenderWindow(), vtk.vtkRenderer()
    window.SetOffScreenRendering(1)
    window.SetSize(SIDE, SIDE)
    window.SetAlphaBitPlanes(1)
    window.AddRenderer(renderer)
    importer = vtk.vtkOBJImporter()
    importer.SetFileName(str(model))
    importer.SetFileNameMTL(str(model.with_suffix(".mtl")))
    importer.SetTexturePath(f"{model.parent}/")
    importer.SetRenderWindow(window)
    importer.Update()
    for actor in list(renderer.GetActors()):
        surface = actor.GetProperty()
        surface.SetAmbientColor(surface.GetDiffuseColor())
        surface.SetAmbient(LIT)
        surface.SetDiffuse(SHADED)
        surface.SetSpecular(GLOSS)
    renderer.SetBackgroundAlpha(0)
    renderer.AutomaticLightCreationOff()
    renderer.RemoveAllLights()
    vtk.vtkLightKit().AddLightsToRenderer(renderer)
    renderer.SetUseDepthPeeling(1)
    low, high = np.array(renderer.ComputeVisiblePropBounds()).reshape(3, 2).T
    middle, distance = (low + high) / 2, 2 * np.linalg.norm(high - low)
    camera = renderer.GetActiveCamera()
    camera.SetViewUp(0, 1, 0)
    camera.SetFocalPoint(*middle)
    found = []
    for around, down in np.radians(sides):
        direction = np.sin(around) * np.cos(down), np.sin(down), np.cos(around) * np.cos(down)
        camera.SetPosition(*(middle + distance * np.array(direction)))
        renderer.ResetCameraClippingRange()
        window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(window)
        grab.SetInputBufferTypeToRGBA()
        grab.ReadFrontBufferOff()
        grab.Update()
        pixels = vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars()).reshape(SIDE, SIDE, 4)[::-1].astype(int)
        alpha = pixels[..., 3:]
        colour = (pixels[..., 2::-1] * 255 // alpha.clip(1)).clip(0, 255)  # without the black that it is drawn over
        found.append(np.concatenate([colour, alpha], axis=-1).astype(np.uint8))
    return found
