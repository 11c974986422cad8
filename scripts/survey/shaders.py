"""The OpenGL programs of `painter`: surfaces as a photograph and as a cartoon, labels, shadows and the sky."""

VERTEX = """#version 330
in vec3 p; in vec3 n; in vec2 t;
uniform mat4 model, view_projection; uniform mat3 turn; uniform vec3 repeat;
out vec3 at, normal, local; out vec2 uv; flat out float face; out vec3 facing;
void main() {
  vec4 w = model * vec4(p, 1); at = w.xyz; normal = turn * n; uv = t; local = p * repeat; facing = n;
  vec3 a = abs(n); int axis = a.x > a.y && a.x > a.z ? 0 : (a.y > a.z ? 1 : 2);
  face = float(2 * axis) + (n[axis] > 0. ? 1. : 0.);
  gl_Position = view_projection * w;
}"""

_COMMON = """#version 330
in vec3 at, normal, local, facing; in vec2 uv; flat in float face;
uniform sampler2D picture; uniform bool sided; uniform vec3 colour, eye, forward;
vec2 texel() {
  if (!sided) return uv;
  vec3 a = abs(facing); return a.x > a.y && a.x > a.z ? local.zy : (a.y > a.z ? local.xz : local.xy);
}
"""

AIR = """
uniform vec3 air_colour, air_sunward, sun; uniform float air_density, air_height;
float haze(vec3 from, vec3 to) {  // optical depth through an atmosphere that thins exponentially with height
  float rise = (to.y - from.y) / air_height, far = distance(from, to);
  float mean = abs(rise) < 1e-3 ? 1. : (1. - exp(-rise)) / rise;
  return 1. - exp(-air_density * far * exp(-max(from.y, 0.) / air_height) * mean);
}
vec3 glow_of(vec3 d) { return air_colour + air_sunward * pow(max(dot(d, sun), 0.), 6.); }
"""

SKY_LIGHT = """
uniform vec3 zenith, horizon, ground, fill, fill_from;
uniform vec3 pane_at[4], pane_u[4], pane_v[4], pane_colour[4];
vec3 dome(vec3 d) {
  vec3 k = d.y > 0. ? mix(horizon, zenith, pow(d.y, .55)) : mix(horizon, ground, min(1., -d.y * 6.));
  return k + fill * pow(max(dot(d, fill_from), 0.), 3.);
}
vec3 mirrored(vec3 from, vec3 d) {  // what is seen in a glossy surface: the dome, and windows with bars
  vec3 k = dome(d);
  for (int i = 0; i < 4; i++) {
    vec3 m = cross(pane_u[i], pane_v[i]); float t = dot(pane_at[i] - from, m) / dot(d, m);
    if (!(t > 0.)) continue;
    vec3 r = from + t * d - pane_at[i];
    float x = dot(r, pane_u[i]) / dot(pane_u[i], pane_u[i]), y = dot(r, pane_v[i]) / dot(pane_v[i], pane_v[i]);
    if (x < 0. || y < 0. || x > 1. || y > 1.) continue;
    float bars = step(.06, fract(x * 3.)) * step(.05, fract(y * 2.));
    k = mix(k, pane_colour[i], bars);
  }
  return k;
}
"""

FRAGMENT = (
    _COMMON
    + AIR
    + SKY_LIGHT
    + """
uniform sampler2D shadow0, shadow1, shadow2, shadow3, reflection;
uniform vec4 light_at[4]; uniform vec3 light_colour[4], light_axis[4]; uniform vec2 light_cone[4];
uniform mat4 to_light[4]; uniform float light_texel[4];
uniform float gloss, shininess, glow, bump, mirror, blur, clip_y, through; uniform bool cartoon, printed, pane;
uniform vec2 size, shake; uniform vec3 flat_colour;
layout(location = 0) out vec4 rgba;
float lit(int i, sampler2D map, vec3 n) {
  float offset = max(light_texel[i] * 2.2, 2e-3);
  vec4 q = to_light[i] * vec4(at + n * offset, 1.);
  if (q.w <= 0.) return 1.;
  vec3 s = q.xyz / q.w * .5 + .5;
  if (s.z > 1. || s.x < 0. || s.y < 0. || s.x > 1. || s.y > 1.) return 1.;
  return texture(map, s.xy).r + 2e-4 < s.z ? 0. : 1.;
}
void main() {
  if (at.y < clip_y) discard;
  vec3 n = normalize(normal), v = normalize(eye - at);
  if (dot(n, v) < 0.) n = -n;
  vec2 c = texel(); vec4 t = texture(picture, c);
  if (t.a < .5) discard;
  if (pane) {
    float f = .035 + .965 * pow(1. - max(dot(n, v), 0.), 5.);
    vec3 seen = mirrored(at, reflect(-v, n));
    rgba = cartoon ? vec4(vec3(.75, .9, 1.), .05 + .12 * step(2., length(seen))) : vec4(seen, f); return;
  }
  vec3 albedo = (cartoon && !printed ? flat_colour : pow(t.rgb, vec3(2.2))) * colour;
  if (bump > 0. && !cartoon) {  // tilt by the slope of brightness on the screen (Mikkelsen 2010)
    float h = dot(t.rgb, vec3(.01)) * bump; vec3 dx = dFdx(at), dy = dFdy(at), r1 = cross(dy, n), r2 = cross(n, dx);
    float det = dot(dx, r1); vec3 slope = sign(det) * (dFdx(h) * r1 + dFdy(h) * r2);
    n = normalize(abs(det) * n - slope + 1e-9 * n); }
  vec3 light = cartoon ? vec3(0.) : .13 * dome(n), shine = vec3(0.);  // what has bounced more than once
  for (int i = 0; i < 4; i++) {
    if (light_colour[i] == vec3(0.)) continue;
    vec3 l = light_at[i].xyz; float k = 1.;
    if (light_at[i].w > .5) {
      l -= at; float q = dot(l, l); l *= inversesqrt(q);
      k = smoothstep(light_cone[i].x, light_cone[i].y, dot(-l, light_axis[i])) / max(q, .01);
    }
    float slope = dot(n, l), s = k;
    if (slope > 0. || through > 0.) {
      vec3 m = slope > 0. ? n : -n;
      s *= i == 0 ? lit(0, shadow0, m) : i == 1 ? lit(1, shadow1, m) : i == 2 ? lit(2, shadow2, m)
         : lit(3, shadow3, m);
      light += light_colour[i] * s * (max(slope, 0.) + through * max(-slope, 0.));
      if (i != 1) {
        float e = pow(max(dot(n, normalize(v + l)), 0.), shininess) * (shininess + 8.) / 25.;
        shine += light_colour[i] * s * max(slope, 0.) * e * gloss; }
    }
  }
  vec3 result;
  if (cartoon) {
    light += dome(n) * .5 + ground * .1;
    float m = max(light.r, max(light.g, light.b)), step3 = m < .38 ? .3 : m < .8 ? .62 : m < 2. ? 1. : 1.25;
    result = albedo * mix(vec3(1.), light / max(m, 1e-4), .55) * step3 + albedo * glow;
    float far = haze(eye, at);
    result = mix(result, air_colour, floor(far * 5. + .5) / 5.);
  } else {
    float f = gloss + (1. - gloss) * pow(1. - max(dot(n, v), 0.), 5.) * min(1., gloss * 6.);
    result = albedo * (light + glow) + shine;
    if (mirror > 0.) {
      float g = mirror + (1. - mirror) * pow(1. - max(dot(n, v), 0.), 5.) * .8;
      vec3 seen = texture(reflection, gl_FragCoord.xy / size + shake * blur / max(dot(at - eye, forward), .5)).rgb;
      result = mix(result, seen, g);
    } else if (gloss > .03) result += mirrored(at, reflect(-v, n)) * f * .6;
    result = mix(result, glow_of(-v), haze(eye, at));
  }
  rgba = vec4(result, 1.);
}"""
)

LABEL_FRAGMENT = (
    _COMMON
    + """
uniform float label; uniform bool is_box;
layout(location = 0) out vec4 found;
void main() {
  if (texture(picture, texel()).a < .5) discard;
  vec3 n = normalize(normal); if (dot(n, eye - at) < 0.) n = -n;
  found = vec4(dot(at - eye, forward), label + (is_box ? face : 0.), n.x, n.y);
}"""
)

SHADOW_VERTEX = """#version 330
in vec3 p; in vec2 t; in float cut; uniform mat4 to_light; out vec2 uv; flat out float is_cut;
void main() { uv = t; is_cut = cut; gl_Position = to_light * vec4(p, 1.); }"""
SHADOW_FRAGMENT = """#version 330
in vec2 uv; flat in float is_cut; uniform sampler2D picture;
void main() { if (is_cut > .5 && texture(picture, uv).a < .5) discard; }"""

SKY_VERTEX = """#version 330
in vec2 q; out vec2 s; void main() { s = q; gl_Position = vec4(q, .99999, 1.); }"""
_SKY_COMMON = """#version 330
in vec2 s; uniform mat4 unproject; uniform vec3 eye; uniform sampler2D noise;
uniform float cover, layers;
float billows(vec2 x) {
  return texture(noise, x).r * .62 + texture(noise, x * 2.7 + .3).r * .26 + texture(noise, x * 7.3 + .7).r * .12;
}
float cloud_at(vec3 d) {
  if (d.y < .012) return 0.;
  vec2 high = d.xz / (d.y + .09) * .09;
  float heap = billows(high + .13);
  float around = atan(d.x, -d.z), band = d.y * 9. + .5 * texture(noise, vec2(around * .3, .2)).r;
  float wave = sin(band * 6.3 + 2. * texture(noise, vec2(around * .5, .7)).r);
  float sheet = billows(vec2(around * .22, band * .55)) + .10 * wave;
  float c = mix(heap, sheet, layers);
  return smoothstep(.78 - cover * .55, .98 - cover * .5, c) * smoothstep(.012, .05, d.y);
}
"""
SKY_FRAGMENT = (
    _SKY_COMMON
    + AIR
    + SKY_LIGHT
    + """
uniform vec3 sun_colour, cloud_colour; uniform float disc, stars; uniform bool cartoon;
layout(location = 0) out vec4 rgba;
float dust(vec2 x) { return fract(sin(dot(floor(x), vec2(12.9898, 78.233))) * 43758.5453); }
void main() {
  vec4 w = unproject * vec4(s, 1., 1.); vec3 d = normalize(w.xyz / w.w - eye);
  vec3 k = dome(d); float c = cloud_at(d), near_sun = max(dot(d, sun), 0.);
  if (cartoon) {
    float step4 = floor(clamp(d.y, 0., 1.) * 7.) / 7.;
    k = mix(horizon, zenith, pow(step4, .55));
    if (c > .4) k = cloud_colour * (c > .75 ? 1.05 : .8);
    if (near_sun > .9993 && disc > 0.) k = vec3(1.6, 1.5, 1.2);
    rgba = vec4(k, 1.); return;
  }
  k += sun_colour * disc * (step(.99995, near_sun) * 40. + pow(near_sun, 700.) * 2. + pow(near_sun, 30.) * .12);
  float deeper = cloud_at(normalize(d + .05 * sun + vec3(0., .012, 0.)));
  float light = clamp(.62 + .9 * (c - deeper) + .25 * pow(near_sun, 3.), .3, 1.25);
  k = mix(k, cloud_colour * light + sun_colour * .12 * pow(near_sun, 8.), c * .95);
  vec2 cell = vec2(atan(d.x, d.z) * 400., asin(d.y) * 400.); vec2 mid = fract(cell) - .5;
  k += stars * step(.9975, dust(cell)) * exp(-dot(mid, mid) * 14.) * dust(cell + 7.) * (1. - c);
  k = mix(k, glow_of(d), haze(eye, eye + d * 30000.) * smoothstep(.12, 0., d.y) * step(1e-9, air_density));
  rgba = vec4(k, 1.);
}"""
)
SKY_LABEL_FRAGMENT = (
    _SKY_COMMON
    + """
layout(location = 0) out vec4 found;
void main() {
  vec4 w = unproject * vec4(s, 1., 1.); vec3 d = normalize(w.xyz / w.w - eye);
  found = vec4(1e9, cloud_at(d) > .4 ? 2. : 1., 0., 0.);
}"""
)
