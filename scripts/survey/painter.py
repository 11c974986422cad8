"""Renders a survey scene: a photograph, a cartoon, and what is exactly true at the centre of every pixel.

The photograph is the mean of many frames, each with another sample of the pixel, the sun's disc, the sky and the lamps
(Haeberli & Akeley 1990, "The accumulation buffer"): soft shadows, occlusion and smooth edges from plain shadow maps.
The truth is one frame without any of this, so depths on both sides of an edge never mix.
OpenGL 3.3 in moderngl's EGL context; Mesa's software rasteriser suffices.
"""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import moderngl
import numpy as np
import shaders
from stage import CLOUD, F32, F64, U8, Item, Lamp, Stage, Vector, upright_to

SHADOW_SIDES = (2048, 1024, 1024, 1024)
"""Of the sun, the sky, and two lamps."""
_SAMPLERS = ("picture", "shadow0", "shadow1", "shadow2", "shadow3", "reflection")


class Found(NamedTuple):
    """What is true at pixel centres: depth (metres along the viewing axis), label, x and y of the normal."""

    depth: F32
    label: F32
    normal: F32


class _Light(NamedTuple):
    at: F64
    w: float
    colour: F64
    axis: F64
    cone: tuple[float, float]
    matrix: F64
    texel: float


class Painter:
    """One OpenGL context with what one scene needs; `detail`: size of the picture as a share of 1600 × 1200."""

    def __init__(self, stage: Stage, detail: float = 1.0) -> None:
        self._stage, self._detail = stage, detail
        gl = self._gl = moderngl.create_context(standalone=True, backend="egl")
        self._surface = gl.program(shaders.VERTEX, shaders.FRAGMENT)
        self._labels = gl.program(shaders.VERTEX, shaders.LABEL_FRAGMENT)
        self._shadow = gl.program(shaders.SHADOW_VERTEX, shaders.SHADOW_FRAGMENT)
        self._sky = gl.program(shaders.SKY_VERTEX, shaders.SKY_FRAGMENT)
        self._sky_labels = gl.program(shaders.SKY_VERTEX, shaders.SKY_LABEL_FRAGMENT)
        square = gl.buffer(np.array([-1, -1, 1, -1, -1, 1, 1, 1], "f4").tobytes())
        self._squares = {program: gl.vertex_array(program, [(square, "2f", "q")])
                         for program in (self._sky, self._sky_labels)}  # fmt: skip
        self._maps = [gl.depth_texture((side, side)) for side in SHADOW_SIDES]
        for one in self._maps:
            one.compare_func, one.repeat_x, one.repeat_y = "", False, False
        self._map_targets = [gl.framebuffer(depth_attachment=one) for one in self._maps]
        self._textures: dict[str, moderngl.Texture] = {}
        self._means: dict[str, F64] = {}
        self._bounds: list[tuple[float, ...]] = []
        self._merged: dict[bool, moderngl.VertexArray] = {}
        self._arrays: dict[tuple[int, str], moderngl.VertexArray] = {}
        self._targets: dict[tuple[int, int, str], tuple[moderngl.Texture, moderngl.Framebuffer]] = {}

    @property
    def size_wh(self) -> tuple[int, int]:
        """Of the pictures."""
        return self._stage.camera.size_wh

    def close(self) -> None:
        """Free the context."""
        self._gl.release()

    # what is drawn

    def photograph(self, frames: int = 48) -> F32:
        """Linear RGB, float32 H×W×3."""
        stage, rng = self._stage, np.random.default_rng(1)
        width, height = self.size_wh
        total = np.zeros((height, width, 3), np.float32)
        offsets, sky = _pixel_samples(frames), _sphere(frames)
        order = rng.permutation(frames)
        for number, shift in enumerate(offsets):
            lights = [self._sunlight(rng), self._skylight(sky[order[number]]), *self._lamplight(rng, number)]
            self._draw_shadows(lights)
            both, eye = self._view(shift), np.asarray(stage.camera.eye, float)
            shake = rng.normal(0, 1, 2)
            if stage.mirror_y is not None:
                flip = np.diag([1.0, -1.0, 1.0, 1.0])
                flip[1, 3] = 2 * stage.mirror_y
                below = eye * [1, -1, 1] + [0, 2 * stage.mirror_y, 0]
                self._draw(self.size_wh, "mirror", both @ flip, below, lights, clip_y=stage.mirror_y + 1e-3)
            total += self._draw(self.size_wh, "photo", both, eye, lights, shake=shake)
        return total / frames

    def found(self, factor: int = 1) -> Found:
        """The truth at the centres of `factor`² pixels for each of the picture."""
        size = (self.size_wh[0] * factor, self.size_wh[1] * factor)
        texture, target = self._target(size, "labels", "f4")
        target.use()
        target.clear(1e9, 1, 0, 0, depth=1.0)
        both, eye = self._view(), np.asarray(self._stage.camera.eye, float)
        self._draw_sky(self._sky_labels, both, eye)
        self._gl.enable(moderngl.DEPTH_TEST)
        program = self._labels
        self._set(program, view_projection=both, eye=eye, forward=self._forward)
        for item in self._in_view(both):
            if not item.paint.pane:
                self._set(program, label=float(item.label), is_box=item.is_box)
                self._draw_item(program, item)
        out = np.frombuffer(texture.read(), "f4").reshape(size[1], size[0], 4)[::-1]
        return Found(out[..., 0].copy(), out[..., 1].copy(), out[..., 2:].copy())

    def cartoon(self, factor: int = 3) -> F32:
        """Linear RGB of flat colours, three steps of light and dark outlines, float32 H×W×3."""
        stage = self._stage
        rng = np.random.default_rng(1)
        size = (self.size_wh[0] * factor, self.size_wh[1] * factor)
        dark = self._skylight(np.array([0.0, 1, 0]))._replace(colour=np.zeros(3))
        lights = [self._sunlight(rng, still=True), dark, *self._lamplight(rng, 0, still=True)]
        self._draw_shadows(lights)
        both, eye = self._view(), np.asarray(stage.camera.eye, float)
        flat = self._draw(size, "cartoon", both, eye, lights, cartoon=True)
        lines = _outlines(self.found(factor), stage.look.outline * factor * self._detail)
        ink = np.asarray(cv2.resize(flat, size, interpolation=cv2.INTER_NEAREST)) * 0.12 * lines[..., None]
        flat = flat * (1 - lines[..., None]) + ink
        return np.asarray(cv2.resize(flat, self.size_wh, interpolation=cv2.INTER_AREA), np.float32)

    # light

    def _sunlight(self, rng: np.random.Generator, *, still: bool = False) -> _Light:
        sky = self._stage.sky
        towards = _unit(np.asarray(sky.sun, float))
        if not still:
            towards = _unit(towards + sky.sun_size * _in_disc(rng, towards))
        return self._directional(towards, np.asarray(sky.sun_colour, float), rng.uniform(0, 6.28))

    def _skylight(self, towards: F64) -> _Light:
        sky = self._stage.sky
        up = towards[1]
        k = np.asarray(sky.horizon, float)
        k = (
            k + (np.asarray(sky.zenith) - k) * up**0.55
            if up > 0
            else k + (np.asarray(sky.ground) - k) * min(1, -6 * up)
        )
        k = k + np.asarray(sky.fill) * max(0.0, float(towards @ _unit(np.asarray(sky.fill_from, float)))) ** 3
        return self._directional(towards, 4 * k, 0.3, SHADOW_SIDES[1])

    def _directional(self, towards: F64, colour: F64, roll: float, side_px: int = SHADOW_SIDES[0]) -> _Light:
        reach, centre = self._stage.shadow_reach, np.asarray(self._stage.shadow_centre, float)
        side = upright_to(towards)
        side = side[:, 0] * np.cos(roll) + side[:, 2] * np.sin(roll)
        view, _ = look_at(centre + towards * 2 * reach, centre, side)
        box = np.diag([1 / reach, 1 / reach, -1 / (2 * reach), 1.0])
        box[2, 3] = -1.0
        return _Light(towards, 0.0, colour, -towards, (0, 0), box @ view, 2 * reach / side_px)

    def _lamplight(self, rng: np.random.Generator, number: int, *, still: bool = False) -> Iterator[_Light]:
        lamps = self._stage.lamps
        slots = 2
        share = len(lamps) / slots if len(lamps) > slots else 1.0
        for slot in range(slots):
            if slot >= len(lamps):
                yield self._directional(np.array([0.0, 1, 0]), np.zeros(3), 0.0)
                continue
            lamp: Lamp = lamps[(slots * number + slot) % len(lamps)] if len(lamps) > slots else lamps[slot]
            at = np.asarray(lamp.at, float)
            if not still:
                at = at + lamp.radius * _unit(rng.normal(0, 1, 3)) * rng.random() ** (1 / 3)
            axis = _unit(np.asarray(lamp.towards, float))
            view, _ = look_at(at, at + axis, upright_to(axis)[:, 0])
            matrix = perspective(2 * np.radians(min(lamp.cone[0], 80)), 1.0, 0.08, lamp.reach) @ view
            outer, inner = np.cos(np.radians(lamp.cone))
            yield _Light(at, 1.0, np.asarray(lamp.colour, float) * share, axis, (outer, inner), matrix, 0.012)

    def _draw_shadows(self, lights: list[_Light]) -> None:
        self._gl.enable(moderngl.DEPTH_TEST)
        for number, (light, target) in enumerate(zip(lights, self._map_targets, strict=True)):
            if not light.colour.any():
                continue
            target.use()
            target.clear(depth=1.0)
            if "leaves" in self._stage.textures:
                self._texture("leaves").use(0)
            self._set(self._shadow, to_light=light.matrix)
            self._casters(number == 0).render()

    def _casters(self, is_sun: bool) -> moderngl.VertexArray:
        """Everything that casts a shadow in one array: a draw for each item would take most of the time."""
        if is_sun not in self._merged:
            parts = []
            for item in self._stage.items:
                if item.casts >= (1 if is_sun else 2) and not item.paint.pane:
                    mesh = self._stage.meshes[item.mesh]
                    at = mesh[:, :3] @ item.matrix[:3, :3].T + item.matrix[:3, 3]
                    is_cut = self._stage.textures[item.paint.texture][..., 3].min() < 128
                    parts.append(np.concatenate([at, mesh[:, 6:] * is_cut, np.full((len(at), 1), is_cut)], 1))
            buffer = self._gl.buffer(np.concatenate(parts).astype("f4").tobytes())
            self._merged[is_sun] = self._gl.vertex_array(self._shadow, [(buffer, "3f 2f 1f", "p", "t", "cut")])
        return self._merged[is_sun]

    # drawing

    def _draw(
        self,
        size: tuple[int, int],
        name: str,
        both: F64,
        eye: F64,
        lights: list[_Light],
        *,
        clip_y: float = -1e9,
        shake: F64 | None = None,
        cartoon: bool = False,
    ) -> F32:
        gl = self._gl
        texture, target = self._target(size, name, "f2")
        target.use()
        target.clear(0, 0, 0, 1, depth=1.0)
        for program in (self._sky, self._surface):
            self._set(program, cartoon=cartoon)
            self._set_surroundings(program)
        self._draw_sky(self._sky, both, eye)
        gl.enable(moderngl.DEPTH_TEST)
        program = self._surface
        self._set(program, view_projection=both, eye=eye, forward=self._forward, clip_y=clip_y, size=size)
        self._set(program, shake=np.zeros(2) if shake is None else shake)
        for key in ("colour", "axis"):
            self._set(program, **{f"light_{key}": np.stack([getattr(light, key) for light in lights])})
        self._set(program, light_at=np.stack([np.append(light.at, light.w) for light in lights]))
        self._set(program, light_cone=np.array([light.cone for light in lights]))
        self._set(program, light_texel=np.array([light.texel for light in lights]))
        self._set(program, to_light=np.stack([light.matrix.T for light in lights]))
        for unit, sampler in enumerate(_SAMPLERS):
            if sampler in program:
                program[sampler].value = unit
        for unit, one in enumerate(self._maps):
            one.use(unit + 1)
        (self._targets[(*size, "mirror")][0] if (*size, "mirror") in self._targets and name != "mirror"
         else self._texture("white")).use(5)  # fmt: skip
        panes = []
        for item in self._in_view(both):
            if item.paint.pane:
                panes.append(item)
            else:
                self._draw_surface(item)
        gl.enable(moderngl.BLEND)
        for item in sorted(panes, key=lambda one: -float(np.linalg.norm(one.matrix[:3, 3] - eye))):
            self._draw_surface(item)
        gl.disable(moderngl.BLEND)
        return np.frombuffer(texture.read(), "f2").reshape(size[1], size[0], 4)[::-1, :, :3].astype(np.float32)

    def _in_view(self, both: F64) -> list[Item]:
        """Items whose bounding sphere meets the view, nearest first, which spares hidden pixels."""
        if not self._bounds:
            for item in self._stage.items:
                mesh = self._stage.meshes[item.mesh][:, :3].astype(float)
                low, high = mesh.min(0), mesh.max(0)
                turned = item.matrix[:3, :3]
                radius = np.linalg.norm(high - low) / 2 * np.linalg.norm(turned, axis=0).max()
                self._bounds.append((*(turned @ (low + high) / 2 + item.matrix[:3, 3]), radius))
        bounds = np.array(self._bounds)
        rows = both[[0, 0, 1, 1]] * np.array([1, -1, 1, -1])[:, None] + both[3]
        rows /= np.linalg.norm(rows[:, :3], axis=1, keepdims=True)
        seen = (bounds[:, :3] @ rows[:, :3].T + rows[:, 3] > -bounds[:, 3:]).all(1)
        ahead = bounds[:, :3] @ both[3, :3] + both[3, 3] - bounds[:, 3]
        order = [k for k in np.argsort(ahead) if seen[k]]
        return [self._stage.items[k] for k in order]

    def _draw_surface(self, item: Item) -> None:
        paint = item.paint
        self._set(
            self._surface,
            colour=paint.colour,
            gloss=paint.gloss,
            shininess=paint.shininess,
            glow=paint.glow,
            bump=paint.bump,
            mirror=paint.mirror,
            blur=paint.blur,
            printed=paint.printed,
            pane=paint.pane,
            through=paint.through,
            flat_colour=self._mean(paint.texture),
        )
        self._draw_item(self._surface, item)

    def _draw_item(self, program: moderngl.Program, item: Item) -> None:
        turn = np.linalg.inv(item.matrix[:3, :3]).T
        self._set(program, model=item.matrix, sided=item.paint.repeat is not None, repeat=item.repeat)
        if "turn" in program:
            program["turn"].write(np.ascontiguousarray(turn.T, "f4").tobytes())
        self._texture(item.paint.texture).use(0)
        self._array(program, item.mesh).render()

    def _draw_sky(self, program: moderngl.Program, both: F64, eye: F64) -> None:
        sky = self._stage.sky
        self._gl.disable(moderngl.DEPTH_TEST)
        self._set(program, unproject=np.linalg.inv(both), eye=eye, cover=sky.cover, layers=sky.layers)
        self._set(program, sun_colour=sky.sun_colour, cloud_colour=sky.cloud, disc=sky.disc, stars=sky.stars)
        if "noise" in program:
            program["noise"].value = 0
        self._texture("noise").use(0)
        self._squares[program].render(moderngl.TRIANGLE_STRIP)

    def _set_surroundings(self, program: moderngl.Program) -> None:
        sky, air = self._stage.sky, self._stage.air
        self._set(program, zenith=sky.zenith, horizon=sky.horizon, ground=sky.ground, fill=sky.fill)
        self._set(program, fill_from=_unit(np.asarray(sky.fill_from, float)), sun=_unit(np.asarray(sky.sun, float)))
        self._set(
            program, air_colour=air.colour, air_sunward=air.sunward, air_density=air.density, air_height=air.height
        )
        nothing = ((0, -1e6, 0), (1, 0, 0), (0, 0, 1), (0, 0, 0))
        panes = [*self._stage.panes, *[nothing] * 4][:4]
        for key, values in zip(("at", "u", "v", "colour"), zip(*panes, strict=True), strict=True):
            self._set(program, **{f"pane_{key}": np.array(values, float)})

    def _set(self, program: moderngl.Program, **values: object) -> None:
        for name, value in values.items():
            if name not in program:
                continue
            if isinstance(value, bool | float | int):
                program[name].value = value
            else:  # OpenGL's matrices are stored by columns
                array = np.asarray(value, "f4")
                is_matrix = array.shape == (4, 4) and name != "light_at"
                program[name].write(np.ascontiguousarray(array.T if is_matrix else array).tobytes())

    @property
    def _forward(self) -> F64:
        camera = self._stage.camera
        return _unit(np.asarray(camera.target, float) - np.asarray(camera.eye, float))

    def _view(self, shift: F64 | None = None) -> F64:
        camera = self._stage.camera
        view, _ = look_at(np.asarray(camera.eye, float), np.asarray(camera.target, float), (0, 1, 0))
        width, height = self.size_wh
        both = perspective(np.radians(camera.fovy), width / height, camera.near, camera.far)
        if shift is not None:
            moved = np.eye(4)
            moved[:2, 3] = 2 * shift / (width, height)
            both = moved @ both
        return both @ view

    def _target(self, size: tuple[int, int], name: str, kind: str) -> tuple[moderngl.Texture, moderngl.Framebuffer]:
        key = (*size, name)
        if key not in self._targets:
            texture = self._gl.texture(size, 4, dtype=kind)
            texture.repeat_x = texture.repeat_y = False
            self._targets[key] = texture, self._gl.framebuffer([texture], self._gl.depth_renderbuffer(size))
        return self._targets[key]

    def _array(self, program: moderngl.Program, mesh: str) -> moderngl.VertexArray:
        key = (program.glo, mesh)
        if key not in self._arrays:
            buffer = self._gl.buffer(np.ascontiguousarray(self._stage.meshes[mesh], "f4").tobytes())
            wanted = [(name, size) for name, size in (("p", 3), ("n", 3), ("t", 2))]
            formats = " ".join(f"{size}f" if name in program else f"{size * 4}x" for name, size in wanted)
            names = [name for name, _ in wanted if name in program]
            self._arrays[key] = self._gl.vertex_array(program, [(buffer, formats, *names)])
        return self._arrays[key]

    def _texture(self, name: str) -> moderngl.Texture:
        if name not in self._textures:
            picture: U8 = self._stage.textures[name]
            texture = self._gl.texture((picture.shape[1], picture.shape[0]), 4, np.ascontiguousarray(picture).tobytes())
            texture.build_mipmaps()
            texture.filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)
            self._textures[name] = texture
        return self._textures[name]

    def _mean(self, name: str) -> F64:
        if name not in self._means:
            picture = self._stage.textures[name].astype(float)
            weight = picture[..., 3:] / 255 + 1e-9
            self._means[name] = (((picture[..., :3] / 255) ** 2.2 * weight).sum((0, 1)) / weight.sum()).astype(float)
        return self._means[name]


def look_at(eye: F64, target: F64, up: Vector) -> tuple[F64, F64]:
    """World to camera (x right, y up, −z ahead), and the direction of view."""
    forward = _unit(np.asarray(target, float) - eye)
    right = _unit(np.cross(forward, up))
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([right, np.cross(right, forward), -forward])
    matrix[:3, 3] = -matrix[:3, :3] @ eye
    return matrix, forward


def perspective(fovy: float, aspect: float, near: float, far: float) -> F64:
    """OpenGL's projection; `fovy` in radians."""
    k = 1 / np.tan(fovy / 2)
    matrix = np.zeros((4, 4))
    matrix[0, 0], matrix[1, 1] = k / aspect, k
    matrix[2, 2], matrix[2, 3], matrix[3, 2] = (far + near) / (near - far), 2 * far * near / (near - far), -1
    return matrix


def _unit(vector: F64) -> F64:
    return np.asarray(vector / np.linalg.norm(vector))


def _in_disc(rng: np.random.Generator, axis: F64) -> F64:
    frame = upright_to(axis)
    angle, radius = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random())
    return np.asarray(radius * (np.cos(angle) * frame[:, 0] + np.sin(angle) * frame[:, 2]))


def _pixel_samples(count: int) -> F64:
    """Positions within a pixel, of a tent twice as wide, from the R2 sequence (Roberts 2018)."""
    k = np.arange(1, count + 1)[:, None]
    u = (0.5 + k * np.array([0.7548776662, 0.5698402910])) % 1
    return np.asarray(np.where(u < 0.5, np.sqrt(2 * u) - 1, 1 - np.sqrt(2 - 2 * u))) * 0.75


def _sphere(count: int) -> F64:
    """Directions spread evenly over the sphere: a golden-angle spiral."""
    k = np.arange(count) + 0.5
    y, angle = 1 - 2 * k / count, np.pi * (1 + 5**0.5) * k
    r = np.sqrt(1 - y * y)
    return np.stack([r * np.cos(angle), y, r * np.sin(angle)], -1)


def _outlines(found: Found, width_px: float) -> F32:
    """Where a cartoonist inks: at jumps of depth and at creases, 0 to 1."""
    inverse = 1 / found.depth
    label = found.label
    ink = np.zeros(label.shape, bool)
    for axis in (0, 1):
        before, after = np.roll(inverse, 1, axis), np.roll(inverse, -1, axis)
        bend = np.abs(before + after - 2 * inverse)
        ink |= bend > 0.03 * inverse + 1e-5
        other = np.roll(label, 1, axis) != label
        turn = np.abs(found.normal - np.roll(found.normal, 1, axis)).sum(-1)
        ink |= other & ((turn > 0.35) | (np.abs(before - inverse) > 0.02 * inverse))
        ink |= turn > 0.9
    ink &= label > CLOUD
    ink[[0, -1]] = ink[:, [0, -1]] = False  # `roll` compares opposite borders
    size = max(1, round(width_px))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return cv2.dilate(ink.astype(np.uint8), disc).astype(np.float32)


def developed(linear: F32, exposure: float, bloom: float, saturation: float) -> U8:
    """The picture a camera makes of this light: glare, a filmic curve (Narkowicz 2015), sRGB."""
    height = linear.shape[0]
    glare = np.clip(linear * exposure - 0.9, 0, 6)
    glare = cv2.GaussianBlur(glare, (0, 0), height * 0.004) * 0.6 + cv2.GaussianBlur(glare, (0, 0), height * 0.02) * 0.4
    x = linear * exposure + bloom * 4 * glare
    grey = x @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    x = np.maximum(grey[..., None] + saturation * (x - grey[..., None]), 0)
    x = x * 0.75
    x = np.clip(x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14), 0, 1)
    return encoded(x)


def encoded(linear: F32) -> U8:
    """sRGB, uint8."""
    x = np.clip(linear, 0, 1)
    curve = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    return np.asarray(curve * 255 + 0.5, np.uint8)
