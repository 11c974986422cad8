"""Renders scenes to images and depth with OpenGL 3.3 in moderngl's EGL context; Mesa's software rasteriser suffices.

Light: a sun with shadows, an ambient hemisphere or a panorama's irradiance and reflection (Ramamoorthi & Hanrahan 2001,
"An efficient representation for irradiance environment maps"), up to three lamps, fog, and a sky or panorama. Depth is
the distance along the viewing axis in metres; the sky's is `SKY_DEPTH`.
"""

from dataclasses import dataclass

import cv2
import moderngl
import numpy as np
from assets import F32, U8
from textures import F64
from world import Item, Scene, Stock, Vector, upright_to

SKY_DEPTH = 1e4
NEAREST = 0.05
SHADOW_SIDE = 1024
LAMPS = 3

_VERTEX = """#version 330
in vec3 p; in vec3 n; in vec2 t;
uniform mat4 model, view_projection, to_sun; uniform vec3 repeat;
out vec3 at, normal, local; out vec2 uv; out vec4 sunward;
void main() {
  vec4 w = model * vec4(p, 1); at = w.xyz; normal = mat3(model) * n; uv = t; local = p * repeat;
  sunward = to_sun * w; gl_Position = view_projection * w;
}"""
_FRAGMENT = """#version 330
in vec3 at, normal, local; in vec2 uv; in vec4 sunward;
uniform sampler2D picture, shadows, around;
uniform vec3 irradiance[9]; uniform float image_light, turn;
uniform vec3 colour, eye, forward, sun, sun_colour, ambient_up, ambient_down, fog_colour;
uniform vec3 lamp_at[3], lamp_colour[3];
uniform float specular, shininess, emission, fog, bump; uniform int three_sided;
layout(location = 0) out vec4 rgb; layout(location = 1) out float depth;
float lit(float slope) {
  vec3 q = sunward.xyz / sunward.w * .5 + .5;
  if (q.z > 1 || any(lessThan(q.xy, vec2(0))) || any(greaterThan(q.xy, vec2(1)))) return 1.;
  float sum = 0., bias = .0006 + .002 * (1 - slope);
  for (int i = -1; i < 2; i++) for (int j = -1; j < 2; j++)
    sum += texture(shadows, q.xy + vec2(i, j) / 800.).r + bias < q.z ? 0. : 1.;
  return sum / 9;
}
vec3 ambient(vec3 n) {
  if (image_light == 0) return mix(ambient_down, ambient_up, n.y * .5 + .5);
  float a = turn * 6.2831853, c = cos(a), s = sin(a); n = vec3(c * n.x - s * n.z, n.y, s * n.x + c * n.z);
  return image_light * max(irradiance[0] + irradiance[1] * n.y + irradiance[2] * n.z + irradiance[3] * n.x
    + irradiance[4] * n.x * n.y + irradiance[5] * n.y * n.z + irradiance[6] * (3 * n.z * n.z - 1)
    + irradiance[7] * n.x * n.z + irradiance[8] * (n.x * n.x - n.y * n.y), vec3(0));
}
void main() {
  vec3 n = normalize(normal), v = normalize(eye - at);
  if (dot(n, v) < 0) n = -n;
  vec2 c = uv;
  if (three_sided > 0) { vec3 a = abs(normal / max(length(normal), 1e-6));
    c = a.x > a.y && a.x > a.z ? local.zy : (a.y > a.z ? local.xz : local.xy); }
  vec4 t = texture(picture, c);
  if (t.a < .5) discard;
  if (bump > 0) {  // tilt by the slope of brightness on the screen (Mikkelsen 2010, "Bump mapping unparametrized")
    float h = dot(t.rgb, vec3(.01)) * bump; vec3 dx = dFdx(at), dy = dFdy(at), r1 = cross(dy, n), r2 = cross(n, dx);
    float det = dot(dx, r1); vec3 slope = sign(det) * (dFdx(h) * r1 + dFdy(h) * r2);
    n = normalize(abs(det) * n - slope + 1e-9 * n); }
  vec3 albedo = pow(t.rgb, vec3(2.2)) * colour;
  float facing = max(dot(n, sun), 0), direct = facing > 0 ? facing * lit(facing) : 0;
  vec3 light = ambient(n) + sun_colour * direct;
  vec3 shine = sun_colour * pow(max(dot(n, normalize(v + sun)), 0), shininess) * direct * specular;
  if (image_light > 0) { vec3 d = reflect(-v, n);
    vec2 q = vec2(atan(d.z, d.x) / 6.2831853 + turn, asin(clamp(d.y, -1., 1.)) / 3.1415927 + .5);
    float fresnel = specular * (.15 + .85 * pow(1 - max(dot(n, v), 0), 5));
    shine += image_light * fresnel * min(textureLod(around, q, clamp(6 - shininess / 12, 1, 6)).rgb, vec3(8)); }
  for (int i = 0; i < 3; i++) {
    vec3 r = lamp_at[i] - at; float q = max(dot(r, r), 1e-4); r *= inversesqrt(q);
    float k = max(dot(n, r), 0) / (q + .6);
    light += lamp_colour[i] * k;
    shine += lamp_colour[i] * pow(max(dot(n, normalize(v + r)), 0), shininess) * k * specular * 4; }
  depth = dot(at - eye, forward);
  rgb = vec4(mix(albedo * (light + emission * 4) + shine, fog_colour, 1 - exp(-fog * depth)), 1);
}"""
_SHADOW_VERTEX = """#version 330
in vec3 p; uniform mat4 model, to_sun; void main() { gl_Position = to_sun * model * vec4(p, 1); }"""
_SHADOW_FRAGMENT = """#version 330
void main() {}"""
_SKY_VERTEX = """#version 330
in vec2 q; out vec2 s; void main() { s = q; gl_Position = vec4(q, .99999, 1); }"""
_SKY_FRAGMENT = """#version 330
in vec2 s; uniform mat4 unproject; uniform vec3 eye, zenith, horizon, ground, sun, sun_colour;
uniform sampler2D clouds, around; uniform float background, turn; uniform float cover, glow, sky_depth;
layout(location = 0) out vec4 rgb; layout(location = 1) out float depth;
void main() {
  vec4 w = unproject * vec4(s, 1, 1); vec3 d = normalize(w.xyz / w.w - eye);
  vec3 k = d.y > 0 ? mix(horizon, zenith, pow(d.y, .6)) : mix(horizon, ground, min(1, -d.y * 4));
  float c = 0;
  if (d.y > .01) c = smoothstep(.75 - cover * .6, 1.05 - cover * .5, texture(clouds, d.xz / (d.y + .12) * .12).r);
  float white = max(horizon.r, max(horizon.g, horizon.b));
  k = mix(k, vec3(white) * (1.15 - .5 * c * cover), c);
  float near_sun = max(dot(d, sun), 0);
  k += sun_colour * (pow(near_sun, 900) * 12 + pow(near_sun, 60) * glow + pow(near_sun, 6) * glow * .25) * (1 - .8 * c);
  if (background > 0) { vec2 q = vec2(atan(d.z, d.x) / 6.2831853 + turn, asin(clamp(d.y, -1., 1.)) / 3.1415927 + .5);
    k = background * textureLod(around, q, 0).rgb; }
  rgb = vec4(k, 1); depth = sky_depth;
}"""


@dataclass
class Light:
    """A scene's light, linear RGB."""

    sun: F64
    sun_colour: F64
    ambient_up: F64
    ambient_down: F64
    zenith: F64
    horizon: F64
    ground: F64
    lamp_at: F64
    lamp_colour: F64
    fog: float = 0.0
    cover: float = 0.0
    glow: float = 0.0
    panorama: str | None = None
    """What lights the scene and is reflected, instead of the ambient hemisphere."""
    background: str | None = None
    """A panorama instead of the sky."""
    level: float = 1.0
    """Brightness of both."""
    turn: float = 0.0
    """Of both, in full turns."""


class Renderer:
    """One OpenGL context and everything uploaded to it."""

    def __init__(self, stock: Stock, width: int, height: int, supersample: int = 2) -> None:
        self._stock = stock
        self.width, self.height, self._factor = width, height, supersample
        gl = self._gl = moderngl.create_context(standalone=True, backend="egl")
        self._program = gl.program(_VERTEX, _FRAGMENT)
        self._shadow = gl.program(_SHADOW_VERTEX, _SHADOW_FRAGMENT)
        self._sky = gl.program(_SKY_VERTEX, _SKY_FRAGMENT)
        size = self._size = (width * supersample, height * supersample)
        self._rgb, self._depth = gl.texture(size, 4, dtype="f2"), gl.texture(size, 1, dtype="f4")
        self._target = gl.framebuffer([self._rgb, self._depth], gl.depth_renderbuffer(size))
        self._shadows = gl.depth_texture((SHADOW_SIDE, SHADOW_SIDE))
        self._shadows.compare_func = ""
        self._shadows.repeat_x = self._shadows.repeat_y = False
        self._shadow_target = gl.framebuffer(depth_attachment=self._shadows)
        square = gl.buffer(np.array([-1, -1, 1, -1, -1, 1, 1, 1], "f4").tobytes())
        self._square = gl.vertex_array(self._sky, [(square, "2f", "q")])
        self._meshes: dict[str, tuple[moderngl.VertexArray, moderngl.VertexArray, moderngl.Buffer, F64, float]] = {}
        self._textures: dict[str, moderngl.Texture] = {}
        self.device_name = str(gl.info["GL_RENDERER"])

    def render(self, scene: Scene, eye: F64, target: F64, light: Light, fovy: float, up: Vector) -> tuple[F32, F32]:
        """→ linear RGB float32 H×W×3, and depth in metres, float32 H×W."""
        view, forward = _look_at(eye, target, up)
        projection = _perspective(np.radians(fovy), self.width / self.height, NEAREST, scene.far)
        both = projection @ view
        to_sun, reach = _towards_sun(eye, forward, light.sun, 30.0 if scene.outdoors else 6.0)
        seen = self._in_front(scene.items, eye, forward, both)
        self._draw_shadows([item for item in scene.items if item.casts_shadow], to_sun, reach)
        gl = self._gl
        self._target.use()
        self._target.clear(0, 0, 0, 1, depth=1.0)
        self._draw_sky(np.linalg.inv(both), eye, light)
        gl.enable(moderngl.DEPTH_TEST)
        for name, value in (("view_projection", both), ("to_sun", to_sun)):
            self._program[name].write(_matrix(value))
        vectors = {
            "eye": eye,
            "forward": forward,
            "sun": light.sun,
            "sun_colour": light.sun_colour,
            "ambient_up": light.ambient_up,
            "ambient_down": light.ambient_down,
            "fog_colour": light.horizon,
            "lamp_at": light.lamp_at,
            "lamp_colour": light.lamp_colour,
        }
        for name, vector in vectors.items():
            self._program[name].write(np.asarray(vector, "f4").tobytes())
        self._program["fog"].value = light.fog
        self._light_by(light)
        self._program["picture"].value, self._program["shadows"].value = 0, 1
        self._shadows.use(1)
        for item in seen:
            self._draw(item)
        width, height = self._size
        depth = np.frombuffer(self._depth.read(), "f4").reshape(height, width)[::-1]
        rgb = np.frombuffer(self._rgb.read(), "f2").reshape(height, width, 4)[::-1, :, :3].astype("f4")
        half = self._factor // 2
        small = cv2.resize(np.clip(rgb, 0, 8), (self.width, self.height), interpolation=cv2.INTER_AREA)
        return small, np.ascontiguousarray(depth[half :: self._factor, half :: self._factor])

    def forget(self, names: list[str]) -> None:
        """Free meshes and textures of these names."""
        for name in names:
            if name in self._meshes:
                lit, shadow, buffer, *_ = self._meshes.pop(name)
                lit.release(), shadow.release(), buffer.release()
            if name in self._textures:
                self._textures.pop(name).release()

    def _mesh(self, name: str) -> tuple[moderngl.VertexArray, moderngl.VertexArray, moderngl.Buffer, F64, float]:
        if name not in self._meshes:
            vertices = self._stock.meshes[name]
            buffer = self._gl.buffer(np.ascontiguousarray(vertices, "f4").tobytes())
            low, high = vertices[:, :3].min(0), vertices[:, :3].max(0)
            centre = ((low + high) / 2).astype(float)
            radius = float(np.linalg.norm(high - low) / 2)
            lit = self._gl.vertex_array(self._program, [(buffer, "3f 3f 2f", "p", "n", "t")])
            shadow = self._gl.vertex_array(self._shadow, [(buffer, "3f 20x", "p")])
            self._meshes[name] = (lit, shadow, buffer, centre, radius)
        return self._meshes[name]

    def _texture(self, name: str) -> moderngl.Texture:
        if name not in self._textures:
            picture: U8 = self._stock.textures[name]
            texture = self._gl.texture((picture.shape[1], picture.shape[0]), 4, np.ascontiguousarray(picture).tobytes())
            texture.build_mipmaps()
            texture.filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)
            self._textures[name] = texture
        return self._textures[name]

    def _panorama(self, name: str) -> moderngl.Texture:
        key = f"panorama/{name}"
        if key not in self._textures:
            picture = self._stock.assets.panoramas[name]
            size = (picture.shape[1], picture.shape[0])
            texture = self._gl.texture(size, 3, np.ascontiguousarray(picture, "f2").tobytes(), dtype="f2")
            texture.build_mipmaps()
            texture.filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)
            self._textures[key] = texture
        return self._textures[key]

    def _light_by(self, light: Light) -> None:
        self._program["image_light"].value = light.level if light.panorama else 0.0
        self._program["turn"].value, self._program["around"].value = light.turn, 2
        if light.panorama:
            self._panorama(light.panorama).use(2)
            self._program["irradiance"].write(self._stock.irradiance(light.panorama).astype("f4").tobytes())

    def _bounds(self, item: Item) -> tuple[F64, float]:
        *_, centre, radius = self._mesh(item.mesh)
        turned = item.matrix[:3, :3]
        return turned @ centre + item.matrix[:3, 3], radius * float(np.linalg.norm(turned, axis=0).max())

    def _in_front(self, items: list[Item], eye: F64, forward: F64, both: F64) -> list[Item]:
        """Items whose bounding sphere intersects the view, nearest first (the depth test then spares hidden pixels)."""
        rows = both[[0, 0, 1, 1]] * np.array([1, -1, 1, -1])[:, None] + both[3]
        rows = rows / np.linalg.norm(rows[:, :3], axis=1, keepdims=True)
        kept = []
        for item in items:
            centre, radius = self._bounds(item)
            if (rows[:, :3] @ centre + rows[:, 3] > -radius).all():
                distance = float((centre - eye) @ forward)
                if distance > -radius:
                    kept.append((distance - radius, len(kept), item))
        return [item for _, _, item in sorted(kept, key=lambda entry: entry[:2])]

    def _draw_shadows(self, items: list[Item], to_sun: F64, reach: float) -> None:
        self._shadow_target.use()
        self._shadow_target.clear(depth=1.0)
        self._gl.enable(moderngl.DEPTH_TEST)
        self._shadow["to_sun"].write(_matrix(to_sun))
        for item in items:
            centre, radius = self._bounds(item)
            if (np.abs(to_sun[:2, :3] @ centre + to_sun[:2, 3]) - radius / (reach / 2) < 1).all():
                self._shadow["model"].write(_matrix(item.matrix))
                self._mesh(item.mesh)[1].render()

    def _draw_sky(self, unproject: F64, eye: F64, light: Light) -> None:
        self._gl.disable(moderngl.DEPTH_TEST)
        self._sky["unproject"].write(_matrix(unproject))
        for name in ("zenith", "horizon", "ground", "sun", "sun_colour"):
            self._sky[name].write(np.asarray(getattr(light, name), "f4").tobytes())
        self._sky["eye"].write(np.asarray(eye, "f4").tobytes())
        self._sky["cover"].value, self._sky["glow"].value = light.cover, light.glow
        self._sky["sky_depth"].value = SKY_DEPTH
        self._sky["background"].value = light.level if light.background else 0.0
        self._sky["turn"].value = light.turn
        self._sky["clouds"].value, self._sky["around"].value = 0, 2
        if light.background:
            self._panorama(light.background).use(2)
        self._texture(self._stock.pick(self._stock.clouds)).use(0)
        self._square.render(moderngl.TRIANGLE_STRIP)

    def _draw(self, item: Item) -> None:
        program, paint = self._program, item.paint
        program["model"].write(_matrix(item.matrix))
        program["colour"].value = paint.colour
        program["specular"].value, program["shininess"].value = paint.specular, paint.shininess
        program["emission"].value, program["bump"].value = paint.emission, paint.bump
        program["three_sided"].value = paint.repeat is not None
        program["repeat"].value = paint.repeat or (1.0, 1.0, 1.0)
        self._texture(paint.texture).use(0)
        self._mesh(item.mesh)[0].render()


def _matrix(matrix: F64) -> bytes:
    return np.ascontiguousarray(matrix.T, "f4").tobytes()


def _look_at(eye: F64, target: F64, up: Vector) -> tuple[F64, F64]:
    forward = np.asarray(target, float) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right) + 1e-9
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([right, np.cross(right, forward), -forward])
    matrix[:3, 3] = -matrix[:3, :3] @ eye
    return matrix, forward


def _perspective(fovy: float, aspect: float, near: float, far: float) -> F64:
    k = 1 / np.tan(fovy / 2)
    matrix = np.zeros((4, 4))
    matrix[0, 0], matrix[1, 1] = k / aspect, k
    matrix[2, 2], matrix[2, 3], matrix[3, 2] = (far + near) / (near - far), 2 * far * near / (near - far), -1
    return matrix


def _towards_sun(eye: F64, forward: F64, sun: F64, reach: float) -> tuple[F64, float]:
    """An orthographic projection of `reach` metres round what is before the camera, seen from the sun."""
    centre = eye + forward * reach * 0.4
    side = upright_to(sun)[:, 0]
    view, _ = _look_at(centre + sun * 60, centre, side)
    scale = np.diag([2 / reach, 2 / reach, -2 / 118.0, 1.0])
    scale[2, 3] = -(120 + 2) / 118.0
    return scale @ view, reach
