// Depthwise convolutions, batch norms and ReLU6, with their gradients: channels last, float or bfloat16, on one thread.
//
// With torch's own the gradients of depthwise convolutions take most of a training step on a CPU (33 ms for 16x1152x5x6
// under a kernel of 5x5, 39 in bfloat16), and hide what a processor with AMX gains elsewhere. Here sixteen channels of a
// picture at a time are copied between zeros, as floats, into a buffer that the second-level cache holds; GCC's vector
// types then are one register of AVX-512, or several of something smaller. Invariant: sums are of floats or doubles.
// Only ReLU6 in bfloat16 hides what is not a number, as 0 or 6.

#include <torch/extension.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>
#include <vector>

namespace {

constexpr int LANES = 16;
typedef float Floats __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));

inline Floats load(const float* from) {
  Floats out;
  std::memcpy(&out, from, sizeof(out));
  return out;
}

inline Floats load(const at::BFloat16* from) {
  Halves half;
  std::memcpy(&half, from, sizeof(half));
  return (Floats)(__builtin_convertvector(half, Words) << 16);
}

inline void store(float* to, Floats value) { std::memcpy(to, &value, sizeof(value)); }

inline void store(at::BFloat16* to, Floats value) {  // rounds to nearest, ties to even
  Words bits = (Words)value;
  bits += 0x7fff + ((bits >> 16) & 1);
  Halves half = __builtin_convertvector(bits >> 16, Halves);
  std::memcpy(to, &half, sizeof(half));
}

// `count` channels of one pixel; the rest are zeros.
template <typename T>
Floats load(const T* from, int count) {
  if (count == LANES) return load(from);
  T all[LANES] = {};
  for (int c = 0; c < count; c++) all[c] = from[c];
  return load(all);
}

template <typename T>
void store(T* to, Floats value, int count) {
  if (count == LANES) return store(to, value);
  T all[LANES];
  store(all, value);
  for (int c = 0; c < count; c++) to[c] = all[c];
}

struct Shape {
  int pictures, channels, height, width, out_height, out_width, kernel, stride, top, left;
  // The picture between zeros: every tap of every output lies in it.
  int full_height, full_width;

  Shape(const at::Tensor& x, const at::Tensor& w, int64_t stride, int64_t top, int64_t left, int64_t out_h, int64_t out_w)
      : pictures(x.size(0)), channels(x.size(1)), height(x.size(2)), width(x.size(3)), out_height(out_h),
        out_width(out_w), kernel(w.size(0) == 9 ? 3 : 5), stride(stride), top(top), left(left),
        full_height(std::max(height + (int)top, (out_height - 1) * (int)stride + kernel)),
        full_width(std::max(width + (int)left, (out_width - 1) * (int)stride + kernel)) {
    TORCH_CHECK(x.is_contiguous(at::MemoryFormat::ChannelsLast), "depthwise: the input must be channels last");
    TORCH_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16, "depthwise: float32 or bfloat16");
    TORCH_CHECK(w.scalar_type() == at::kFloat && w.is_contiguous() && w.size(1) == channels,
                "depthwise: weights must be float32, taps x channels");
    TORCH_CHECK(w.size(0) == 9 || w.size(0) == 25, "depthwise: kernels are 3x3 or 5x5");
  }

  template <typename T>
  T* inner(T* full) const { return full + (top * full_width + left); }
};

// Sixteen channels of the kernel.
template <int TAPS>
struct Taps {
  Floats at[TAPS];

  Taps(const float* w, int channels, int c, int count) {
    for (int k = 0; k < TAPS; k++) at[k] = load(w + k * channels + c, count);
  }
};

// One picture's channels c to c + count → rows of vectors.
template <typename T>
void gather(const T* picture, int height, int width, int channels, int c, int count, Floats* to, int row) {
  for (int i = 0; i < height; i++)
    for (int j = 0; j < width; j++) to[i * row + j] = load(picture + ((int64_t)i * width + j) * channels + c, count);
}

template <typename T>
void scatter(const Floats* from, int row, T* picture, int height, int width, int channels, int c, int count) {
  for (int i = 0; i < height; i++)
    for (int j = 0; j < width; j++) store(picture + ((int64_t)i * width + j) * channels + c, from[i * row + j], count);
}

// N outputs of a row at once: the taps are read once for all of them, the sums stay in registers.
template <int K, int N, typename T>
void several(const Floats* from, int row, int stride, const Taps<K * K>& taps, Floats bias, T* to, int channels,
             int count) {
  Floats sums[N];
  for (int n = 0; n < N; n++) sums[n] = bias;
#pragma GCC unroll 5
  for (int ky = 0; ky < K; ky++)
#pragma GCC unroll 5
    for (int kx = 0; kx < K; kx++)
#pragma GCC unroll 8
      for (int n = 0; n < N; n++) sums[n] += from[ky * row + kx + n * stride] * taps.at[ky * K + kx];
  for (int n = 0; n < N; n++) store(to + n * channels, sums[n], count);
}

// Rows of vectors between zeros → height×width pixels of `to`.
template <int K, typename T>
void convolve(const Floats* full, int row, int stride, const Taps<K * K>& taps, Floats bias, T* to, int height, int width,
              int channels, int count) {
  for (int i = 0; i < height; i++) {
    const Floats* from = full + i * stride * row;
    int j = 0;
    for (; j + 4 <= width; j += 4, to += 4 * channels)
      several<K, 4>(from + j * stride, row, stride, taps, bias, to, channels, count);
    for (; j + 2 <= width; j += 2, to += 2 * channels)
      several<K, 2>(from + j * stride, row, stride, taps, bias, to, channels, count);
    for (; j < width; j++, to += channels)
      several<K, 1>(from + j * stride, row, stride, taps, bias, to, channels, count);
  }
}

template <typename T, int K>
void forward(const T* x, const float* w, const float* b, T* y, const Shape& s) {
  std::vector<Floats> full(s.full_height * s.full_width);
  for (int c = 0; c < s.channels; c += LANES) {
    int count = std::min(LANES, s.channels - c);
    Taps<K * K> taps(w, s.channels, c, count);
    Floats bias = b ? load(b + c, count) : Floats{};
    for (int n = 0; n < s.pictures; n++) {
      gather(x + (int64_t)n * s.height * s.width * s.channels, s.height, s.width, s.channels, c, count,
             s.inner(full.data()), s.full_width);
      convolve<K>(full.data(), s.full_width, s.stride, taps, bias,
                  y + (int64_t)n * s.out_height * s.out_width * s.channels + c, s.out_height, s.out_width, s.channels,
                  count);
    }
  }
}

template <typename T, int K>
void backward(const T* x, const float* w, const T* g, T* gx, float* gw, float* gb, const Shape& s) {
  // With a stride of 1 the gradient of x is a convolution, too, of g between zeros under the kernel turned round.
  bool turned = s.stride == 1;
  int above = turned ? K - 1 - s.top : 0, before = turned ? K - 1 - s.left : 0;
  int row = turned ? s.width + K - 1 : s.out_width, rows = turned ? s.height + K - 1 : s.out_height;
  std::vector<Floats> full(s.full_height * s.full_width), slopes(rows * row), gradient(turned ? 0 : full.size());
  for (int c = 0; c < s.channels; c += LANES) {
    int count = std::min(LANES, s.channels - c);
    Taps<K * K> taps(w, s.channels, c, count), round = taps;
    std::reverse(round.at, round.at + K * K);
    Floats sums[K * K] = {}, bias = {};
    for (int n = 0; n < s.pictures; n++) {
      int64_t start = (int64_t)n * s.height * s.width * s.channels;
      gather(x + start, s.height, s.width, s.channels, c, count, s.inner(full.data()), s.full_width);
      Floats* inner = slopes.data() + above * row + before;
      gather(g + (int64_t)n * s.out_height * s.out_width * s.channels, s.out_height, s.out_width, s.channels, c, count,
             inner, row);
      for (int i = 0; i < s.out_height; i++)
        for (int j = 0; j < s.out_width; j++) {
          Floats slope = inner[i * row + j];
          const Floats* from = full.data() + (i * s.full_width + j) * s.stride;
          bias += slope;
#pragma GCC unroll 5
          for (int ky = 0; ky < K; ky++)
#pragma GCC unroll 5
            for (int kx = 0; kx < K; kx++) sums[ky * K + kx] += slope * from[ky * s.full_width + kx];
        }
      if (turned) {
        convolve<K>(slopes.data(), row, 1, round, Floats{}, gx + start + c, s.height, s.width, s.channels, count);
        continue;
      }
      std::fill(gradient.begin(), gradient.end(), Floats{});
      for (int i = 0; i < s.out_height; i++)
        for (int j = 0; j < s.out_width; j++) {
          Floats slope = inner[i * row + j];
          Floats* to = gradient.data() + (i * s.full_width + j) * s.stride;
#pragma GCC unroll 5
          for (int ky = 0; ky < K; ky++)
#pragma GCC unroll 5
            for (int kx = 0; kx < K; kx++) to[ky * s.full_width + kx] += slope * taps.at[ky * K + kx];
        }
      scatter(s.inner(gradient.data()), s.full_width, gx + start, s.height, s.width, s.channels, c, count);
    }
    for (int k = 0; k < K * K; k++) store(gw + k * s.channels + c, sums[k], count);
    store(gb + c, bias, count);
  }
}

// Calls `body` with a value of x's type and the kernel's side.
template <typename F>
void dispatch(const at::Tensor& x, const Shape& s, F body) {
  auto kernel = [&](auto zero) {
    if (s.kernel == 3)
      body(zero, std::integral_constant<int, 3>());
    else
      body(zero, std::integral_constant<int, 5>());
  };
  if (x.scalar_type() == at::kFloat)
    kernel(0.f);
  else
    kernel(at::BFloat16(0.f));
}

}  // namespace

// x N×C×H×W, w taps×C, b C or none → N×C×out_height×out_width.
at::Tensor depthwise(const at::Tensor& x, const at::Tensor& w, const std::optional<at::Tensor>& b, int64_t stride,
                     int64_t top, int64_t left, int64_t out_height, int64_t out_width) {
  Shape s(x, w, stride, top, left, out_height, out_width);
  auto y = at::empty({x.size(0), x.size(1), out_height, out_width}, x.options(), at::MemoryFormat::ChannelsLast);
  const float* bias = b ? b->data_ptr<float>() : nullptr;
  dispatch(x, s, [&](auto zero, auto k) {
    using T = decltype(zero);
    forward<T, k.value>(x.data_ptr<T>(), w.data_ptr<float>(), bias, y.data_ptr<T>(), s);
  });
  return y;
}

// The gradients of x, w and b.
std::vector<at::Tensor> depthwise_gradients(const at::Tensor& x, const at::Tensor& w, const at::Tensor& g, int64_t stride,
                                            int64_t top, int64_t left) {
  Shape s(x, w, stride, top, left, g.size(2), g.size(3));
  TORCH_CHECK(g.is_contiguous(at::MemoryFormat::ChannelsLast) && g.scalar_type() == x.scalar_type(),
              "depthwise: the gradient must be channels last, of the input's type");
  auto gx = at::empty_like(x), gw = at::empty_like(w), gb = at::empty({x.size(1)}, w.options());
  dispatch(x, s, [&](auto zero, auto k) {
    using T = decltype(zero);
    backward<T, k.value>(x.data_ptr<T>(), w.data_ptr<float>(), g.data_ptr<T>(), gx.data_ptr<T>(), gw.data_ptr<float>(),
                         gb.data_ptr<float>(), s);
  });
  return {gx, gw, gb};
}

namespace {

// A channels-last tensor as vectors: after a period of them the same channels come again.
struct Rows {
  int channels, period;
  int64_t count;  // of periods

  explicit Rows(const at::Tensor& x) : channels(x.size(1)), period(channels / std::gcd(channels, LANES)) {
    int64_t numbers = (int64_t)period * LANES;
    TORCH_CHECK(x.is_contiguous(at::MemoryFormat::ChannelsLast), "norm: the tensor must be channels last");
    TORCH_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16, "norm: float32 or bfloat16");
    TORCH_CHECK(x.numel() % numbers == 0 && period <= 64, "norm: too few or too many numbers");
    count = x.numel() / numbers;
  }

  // Numbers of a channel each → of a period.
  std::vector<Floats> spread(const float* each) const {
    std::vector<Floats> out(period);
    for (int k = 0; k < period * LANES; k++) out[k / LANES][k % LANES] = each[k % channels];
    return out;
  }
};

using Doubles = std::vector<double>;

// The means over pictures and pixels of two functions of a number, for each channel: `body` adds one vector's to two sums.
template <typename F>
std::pair<Doubles, Doubles> means(const Rows& rows, F body) {
  constexpr int64_t CHUNK = 128;  // float sums of so many are added up as doubles
  Doubles first(rows.channels), second(rows.channels);
  std::vector<Floats> a(rows.period), b(rows.period);
  for (int64_t start = 0; start < rows.count; start += CHUNK) {
    std::fill(a.begin(), a.end(), Floats{});
    std::fill(b.begin(), b.end(), Floats{});
    for (int64_t row = start; row < std::min(start + CHUNK, rows.count); row++)
      for (int v = 0; v < rows.period; v++) body((row * rows.period + v) * LANES, v, a[v], b[v]);
    for (int k = 0; k < rows.period * LANES; k++) {
      first[k % rows.channels] += a[k / LANES][k % LANES];
      second[k % rows.channels] += b[k / LANES][k % LANES];
    }
  }
  double each = (double)rows.count * rows.period * LANES / rows.channels;
  for (int c = 0; c < rows.channels; c++) first[c] /= each, second[c] /= each;
  return {first, second};
}

at::Tensor as_tensor(const Doubles& values, const at::TensorOptions& options) {
  auto out = at::empty({(int64_t)values.size()}, options);
  std::copy(values.begin(), values.end(), out.data_ptr<float>());
  return out;
}

template <typename F>
void by_type(const at::Tensor& x, F body) {
  if (x.scalar_type() == at::kFloat)
    body(x.data_ptr<float>());
  else
    body(x.data_ptr<at::BFloat16>());
}

}  // namespace

// x normalised over pictures and pixels, times w, plus b; and of each channel the mean, the variance (of the population)
// and 1 / the deviation.
std::vector<at::Tensor> norm(const at::Tensor& x, const at::Tensor& w, const at::Tensor& b, double eps) {
  Rows rows(x);
  auto y = at::empty_like(x);
  at::Tensor mean, variance, inverse;
  by_type(x, [&](auto* from) {
    std::vector<float> origin(from, from + rows.channels);  // of the first pixel: sums of differences do not cancel
    auto origins = rows.spread(origin.data());
    auto [first, second] = means(rows, [&](int64_t at, int v, Floats& sum, Floats& squares) {
      Floats value = load(from + at) - origins[v];
      sum += value;
      squares += value * value;
    });
    for (int c = 0; c < rows.channels; c++) {
      second[c] = std::max(0., second[c] - first[c] * first[c]);
      first[c] += origin[c];
    }
    mean = as_tensor(first, w.options()), variance = as_tensor(second, w.options());
    inverse = (variance + eps).rsqrt();
    auto scale = (w * inverse).contiguous(), shift = (b - mean * scale).contiguous();
    auto scales = rows.spread(scale.data_ptr<float>()), shifts = rows.spread(shift.data_ptr<float>());
    auto* to = y.data_ptr<std::remove_pointer_t<decltype(from)>>();
    for (int64_t row = 0; row < rows.count; row++)
      for (int v = 0; v < rows.period; v++) {
        int64_t at = (row * rows.period + v) * LANES;
        store(to + at, load(from + at) * scales[v] + shifts[v]);
      }
  });
  return {y, mean, variance, inverse};
}

// The gradients of x, w and b.
std::vector<at::Tensor> norm_gradients(const at::Tensor& x, const at::Tensor& w, const at::Tensor& g,
                                       const at::Tensor& mean, const at::Tensor& inverse) {
  Rows rows(x);
  TORCH_CHECK(g.is_contiguous(at::MemoryFormat::ChannelsLast) && g.sizes() == x.sizes() &&
                  g.scalar_type() == x.scalar_type(),
              "norm: the gradient must be channels last, of the input's shape and type");
  auto gx = at::empty_like(x);
  at::Tensor of_b, of_w;
  by_type(x, [&](auto* from) {
    using T = std::remove_pointer_t<decltype(from)>;
    const T* slopes = g.data_ptr<T>();
    auto shift = (mean * inverse).contiguous();
    auto inverses = rows.spread(inverse.data_ptr<float>()), shifts = rows.spread(shift.data_ptr<float>());
    auto [first, second] = means(rows, [&](int64_t at, int v, Floats& sum, Floats& products) {
      Floats slope = load(slopes + at);
      sum += slope;
      products += slope * (load(from + at) * inverses[v] - shifts[v]);
    });
    of_b = as_tensor(first, w.options()), of_w = as_tensor(second, w.options());
    // gx = w / deviation * (g - mean of g - x' * mean of g x'), where x' is x normalised.
    auto scale = (w * inverse).contiguous(), of_x = (scale * of_w * inverse).contiguous();
    auto rest = (scale * (of_w * shift - of_b)).contiguous();
    auto scales = rows.spread(scale.data_ptr<float>()), of_xs = rows.spread(of_x.data_ptr<float>());
    auto rests = rows.spread(rest.data_ptr<float>());
    T* to = gx.data_ptr<T>();
    for (int64_t row = 0; row < rows.count; row++)
      for (int v = 0; v < rows.period; v++) {
        int64_t at = (row * rows.period + v) * LANES;
        store(to + at, load(slopes + at) * scales[v] - load(from + at) * of_xs[v] + rests[v]);
      }
  });
  double each = (double)x.numel() / rows.channels;
  return {gx, of_w * each, of_b * each};
}

// In place.
void relu6(at::Tensor& x) {
  TORCH_CHECK(x.is_non_overlapping_and_dense(), "relu6: the tensor has holes");
  int64_t count = x.numel();
  if (x.scalar_type() == at::kFloat) {
    float* v = x.data_ptr<float>();
    for (int64_t i = 0; i < count; i++) v[i] = std::min(std::max(v[i], 0.f), 6.f);
  } else {
    TORCH_CHECK(x.scalar_type() == at::kBFloat16, "relu6: float32 or bfloat16");
    int16_t* v = (int16_t*)x.data_ptr<at::BFloat16>();  // the bits of floats from 0 up are ordered like the floats
    for (int64_t i = 0; i < count; i++) v[i] = std::min<int16_t>(std::max<int16_t>(v[i], 0), 0x40c0);
  }
}

// The gradient where the output y lies between 0 and 6, else 0.
at::Tensor relu6_gradient(const at::Tensor& y, const at::Tensor& g) {
  TORCH_CHECK(y.strides() == g.strides() && y.scalar_type() == g.scalar_type(), "relu6: layouts differ");
  auto out = at::empty_like(g);
  int64_t count = y.numel();
  if (y.scalar_type() == at::kFloat) {
    const float *v = y.data_ptr<float>(), *from = g.data_ptr<float>();
    float* to = out.data_ptr<float>();
    for (int64_t i = 0; i < count; i++) to[i] = v[i] > 0 && v[i] < 6 ? from[i] : 0;
  } else {
    const int16_t *v = (int16_t*)y.data_ptr<at::BFloat16>(), *from = (int16_t*)g.data_ptr<at::BFloat16>();
    int16_t* to = (int16_t*)out.data_ptr<at::BFloat16>();
    for (int64_t i = 0; i < count; i++) to[i] = v[i] > 0 && v[i] < 0x40c0 ? from[i] : 0;
  }
  return out;
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("depthwise", &depthwise);
  m.def("depthwise_gradients", &depthwise_gradients);
  m.def("norm", &norm);
  m.def("norm_gradients", &norm_gradients);
  m.def("relu6", &relu6);
  m.def("relu6_gradient", &relu6_gradient);
}
