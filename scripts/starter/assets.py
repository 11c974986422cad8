"""Reads the furniture of Debian's sweethome3d-furniture into one file of meshes: the first step.

    python scripts/starter/assets.py --work FOLDER [--furniture /usr/share/sweethome3d/furniture] [--extra FOLDER]

`--extra` names a folder with `hdri/` (Radiance .hdr panoramas) and `objects/` (NAME.npz: vertices in metres, uv, faces,
uv_faces; NAME.jpg: texture): real light and scanned things.

Models come from five libraries, CC0 1.0 or CC-BY 3.0 (the package's copyright file and NOTICE credit their authors).
Coordinates are metres, y up; a model is centred in x and z, stands on y = 0 and has the size its catalogue gives.
"""

import argparse
import pickle
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
FURNITURE = Path("/usr/share/sweethome3d/furniture")
LIBRARIES = ("BlendSwap-CC-0", "BlendSwap-CC-BY", "KatorLegaz", "Reallusion", "Scopia")
MOST_TRIANGLES = 60_000
TEXTURE_SIDE = 256
PANORAMA_SIZE = (512, 256)
BRIGHTEST = 40.0
CELLS = 40
"""Scanned meshes are simplified to a grid of this many cells along their longest side."""
SCANNED = "Scanned"
"""Category of the scanned objects."""


@dataclass(frozen=True)
class Material:
    """Surface of a part: sRGB diffuse colour, specular strength, opacity, and a texture's key or None."""

    diffuse: tuple[float, float, float] = (0.7, 0.7, 0.7)
    specular: float = 0.0
    opacity: float = 1.0
    texture: str | None = None


@dataclass(frozen=True)
class Part:
    """Triangles of one material: float32 (3·triangles)×8, position, normal, texture coordinate."""

    vertices: F32
    material: Material


@dataclass(frozen=True)
class Model:
    """One piece of furniture; `size` is width, height and depth, `elevation` the height it hangs at, in metres."""

    name: str
    category: str
    library: str
    size: tuple[float, float, float]
    elevation: float
    in_wall: bool
    parts: list[Part]

    @property
    def triangles(self) -> int:
        """Over all parts."""
        return sum(len(part.vertices) for part in self.parts) // 3


@dataclass
class Assets:
    """All models, and their textures as uint8 H×W×4 RGBA with the first row at the bottom, as OpenGL has it."""

    models: list[Model] = field(default_factory=list)
    textures: dict[str, U8] = field(default_factory=dict)
    panoramas: dict[str, F32] = field(default_factory=dict)
    """Linear RGB, H×2H×3, first row at the bottom, mean brightness 1; a light source is at most `BRIGHTEST`."""

    def of(self, *categories: str) -> list[Model]:
        """The models of these catalogue categories."""
        return [model for model in self.models if model.category in categories]


def load(work: Path) -> Assets:
    """Load the file that this command writes. It is a pickle: never point `work` at a folder from somebody else."""
    path = work / "assets.pickle"
    if not path.exists():
        raise SystemExit(f"{path}: missing; run scripts/starter/assets.py --work {work} first")
    with path.open("rb") as file:
        assets: Assets = pickle.load(file)
    return assets


def save(work: Path, assets: Assets) -> None:
    """Write the file that `load` reads, in one step."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "assets.partial").open("wb") as file:
        pickle.dump(assets, file, protocol=5)
    (work / "assets.partial").rename(work / "assets.pickle")


def read_library(path: Path, assets: Assets) -> None:
    """Add every usable model of one .sh3f file."""
    with zipfile.ZipFile(path) as archive:
        members = set(archive.namelist())
        for properties in _catalogue(archive):
            member = properties.get("model", "").lstrip("/")
            if member in members and member.endswith(".obj"):
                model = _read_model(archive, member, properties, path.stem, assets.textures)
                if model and 0 < model.triangles <= MOST_TRIANGLES:
                    assets.models.append(model)


def _catalogue(archive: zipfile.ZipFile) -> list[dict[str, str]]:
    rows: dict[int, dict[str, str]] = {}
    for line in archive.read("PluginFurnitureCatalog.properties").decode("latin1").splitlines():
        if match := re.match(r"(\w+)#(\d+)\s*=\s*(.*)", line.strip()):
            rows.setdefault(int(match[2]), {})[match[1]] = match[3].strip()
    return [rows[number] for number in sorted(rows)]


def _read_model(
    archive: zipfile.ZipFile, member: str, properties: dict[str, str], library: str, textures: dict[str, U8]
) -> Model | None:
    groups, materials = _read_obj(archive, member)
    if not groups:
        return None
    size = np.array([float(properties.get(key, 50)) / 100 for key in ("width", "height", "depth")])
    turn = np.array([float(x) for x in properties.get("modelRotation", "1 0 0 0 1 0 0 0 1").split()]).reshape(3, 3)
    points = np.concatenate([position.reshape(-1, 3) for position, _, _, _ in groups]) @ turn.T
    low, high = points.min(0), points.max(0)
    scale = size / np.maximum(high - low, 1e-6)
    origin = np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    parts = []
    for position, normal, texcoord, name in groups:
        normals = normal @ turn.T / scale
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True) + 1e-9
        corners = np.concatenate([(position @ turn.T - origin) * scale, normals, texcoord], -1)
        material = materials.get(name, Material())
        if material.texture and not _read_texture(archive, library, material.texture, textures):
            material = Material(material.diffuse, material.specular, material.opacity)
        elif material.texture:
            key = f"{library}/{material.texture}"
            material = Material(material.diffuse, material.specular, material.opacity, key)
        parts.append(Part(np.ascontiguousarray(corners.reshape(-1, 8), np.float32), material))
    return Model(
        name=properties.get("name", ""),
        category=properties.get("category", ""),
        library=library,
        size=(float(size[0]), float(size[1]), float(size[2])),
        elevation=float(properties.get("elevation", 0)) / 100,
        in_wall=properties.get("doorOrWindow", "") == "true",
        parts=parts,
    )


def _read_obj(archive: zipfile.ZipFile, member: str) -> tuple[list[tuple[Any, Any, Any, str]], dict[str, Material]]:
    """(triangles×3×3 positions, normals, triangles×3×2 texture coordinates, material) per group; Wavefront OBJ."""
    columns: dict[str, list[list[float]]] = {"v": [], "vt": [], "vn": []}
    faces: dict[str, list[tuple[tuple[int, int, int], ...]]] = {}
    materials: dict[str, Material] = {}
    current = ""
    for line in archive.read(member).decode("latin1").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word in columns:
            columns[word].append([float(x) for x in rest.split()[: 2 if word == "vt" else 3]])
        elif word == "f":
            corners = [_corner(text) for text in rest.split()]
            fan = faces.setdefault(current, [])
            fan += [(corners[0], corners[i], corners[i + 1]) for i in range(1, len(corners) - 1)]
        elif word == "usemtl":
            current = rest.strip()
        elif word == "mtllib":
            materials |= _read_mtl(archive, PurePosixPath(member).parent / rest.strip())
    position = np.array(columns["v"], np.float32).reshape(-1, 3)
    texcoord = np.array(columns["vt"], np.float32).reshape(-1, 2)
    normal = np.array(columns["vn"], np.float32).reshape(-1, 3)
    groups = []
    for name, triangles in faces.items():
        index = np.array(triangles, np.int64)
        p = position[_from_one(index[..., 0], len(position))]
        flat = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
        flat /= np.linalg.norm(flat, axis=1, keepdims=True) + 1e-9
        has_texcoord = len(texcoord) and (index[..., 1] != 0).all()
        has_normal = len(normal) and (index[..., 2] != 0).all()
        t = texcoord[_from_one(index[..., 1], len(texcoord))] if has_texcoord else np.zeros((*p.shape[:2], 2))
        n = normal[_from_one(index[..., 2], len(normal))] if has_normal else np.repeat(flat[:, None], 3, 1)
        groups.append((p, n, t, name))
    return groups, materials


def _corner(text: str) -> tuple[int, int, int]:
    numbers = [int(x) if x else 0 for x in text.split("/")] + [0, 0]
    return numbers[0], numbers[1], numbers[2]


def _from_one(index: Any, count: int) -> Any:
    """OBJ counts from 1, or from the end when negative."""
    return np.where(index > 0, index - 1, count + index)


def _read_mtl(archive: zipfile.ZipFile, path: PurePosixPath) -> dict[str, Material]:
    if str(path) not in archive.namelist():
        return {}
    found: dict[str, dict[str, Any]] = {}
    values: dict[str, Any] = {}
    for line in archive.read(str(path)).decode("latin1").splitlines():
        word, _, rest = line.strip().partition(" ")
        word, rest = word.lower(), rest.strip()
        if word == "newmtl":
            values = found.setdefault(rest, {})
        elif word == "kd":
            values["diffuse"] = tuple(float(x) for x in rest.split()[:3])
        elif word == "ks":
            values["specular"] = float(rest.split()[0])
        elif word == "d":
            values["opacity"] = float(rest.split()[-1])
        elif word == "map_kd":
            values["texture"] = str(path.parent / rest.replace("\\", "/"))
    return {name: Material(**values) for name, values in found.items()}


def _read_texture(archive: zipfile.ZipFile, library: str, member: str, textures: dict[str, U8]) -> bool:
    key = f"{library}/{member}"
    if key in textures:
        return True
    if member not in archive.namelist():
        return False
    picture = cv2.imdecode(np.frombuffer(archive.read(member), np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None:
        return False
    if picture.ndim == 2:
        picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGRA)
    elif picture.shape[2] == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2BGRA)
    scale = TEXTURE_SIDE / max(picture.shape[:2])
    if scale < 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    textures[key] = np.ascontiguousarray(picture[::-1, :, [2, 1, 0, 3]].astype(np.uint8))
    return True


def read_panoramas(folder: Path, assets: Assets) -> None:
    """Add every panorama of a folder."""
    for path in sorted(folder.glob("*.hdr")):
        picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if picture is None:
            raise SystemExit(f"{path}: cannot be read")
        small = cv2.resize(picture, PANORAMA_SIZE, interpolation=cv2.INTER_AREA)[::-1, :, ::-1]
        level = max(float(small.mean()), 1e-6)
        assets.panoramas[path.stem] = np.ascontiguousarray(np.clip(small / level, 0, BRIGHTEST), np.float32)


def read_objects(folder: Path, assets: Assets) -> None:
    """Add every scanned object of a folder; the longest side of a texture becomes `TEXTURE_SIDE`."""
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as scan:
            points, uv, faces, uv_faces = (scan[key] for key in ("vertices", "uv", "faces", "uv_faces"))
        low, high = points.min(0), points.max(0)
        points = points[:, [0, 2, 1]] * np.array([1, 1, -1])  # scans are z up
        middle = np.array([(low[0] + high[0]) / 2, low[2], -(low[1] + high[1]) / 2])
        cells = np.round(points / ((high - low).max() / CELLS)).astype(np.int64)
        _, group = np.unique(cells, axis=0, return_inverse=True)
        group = group.ravel()
        count = np.bincount(group)[:, None]
        points = np.stack([np.bincount(group, points[:, axis]) for axis in range(3)], 1) / count
        faces = group[faces]  # vertices of a cell become one; what is left of a triangle without an area goes
        kept = (faces != np.roll(faces, 1, axis=1)).all(1)
        faces, uv_faces = faces[kept], uv_faces[kept]
        corners = (points - middle)[faces]
        normal = np.zeros_like(points)
        flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        for column in range(3):
            np.add.at(normal, faces[:, column], flat)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12
        rows = np.concatenate([corners, normal[faces], uv[uv_faces]], -1).reshape(-1, 8)
        picture = cv2.imread(str(path.with_suffix(".jpg")))
        if picture is None:
            raise SystemExit(f"{path.with_suffix('.jpg')}: cannot be read")
        scale = TEXTURE_SIDE / max(picture.shape[:2])
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        key = f"{SCANNED}/{path.stem}"
        opaque = cv2.cvtColor(picture, cv2.COLOR_BGR2RGBA)[::-1]
        assets.textures[key] = np.ascontiguousarray(opaque, np.uint8)
        width, depth, height = (float(x) for x in high - low)
        part = Part(np.ascontiguousarray(rows, np.float32), Material((1, 1, 1), 0.2, 1.0, key))
        assets.models.append(Model(path.stem, SCANNED, SCANNED, (width, height, depth), 0.0, False, [part]))


def main() -> None:
    """Read every library and write `assets.pickle`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of everything made on the way")
    parser.add_argument("--furniture", type=Path, default=FURNITURE, help="folder of the .sh3f libraries")
    parser.add_argument("--extra", type=Path, help="folder with hdri/ and objects/")
    options = parser.parse_args()
    assets = Assets()
    for name in LIBRARIES:
        path = options.furniture / f"{name}.sh3f"
        if not path.exists():
            raise SystemExit(f"{path}: missing; install Debian's sweethome3d-furniture or give --furniture")
        read_library(path, assets)
    if options.extra:
        read_panoramas(options.extra / "hdri", assets)
        read_objects(options.extra / "objects", assets)
    save(options.work, assets)
    triangles = sum(model.triangles for model in assets.models)
    print(f"{len(assets.models)} models, {triangles / 1e6:.1f} M triangles, {len(assets.textures)} textures")


if __name__ == "__main__":
    import assets as this  # pickles must name `assets.Model`, not `__main__.Model`

    this.main()
