// Residual addition and RMSNorm, one row at a time: read once, written once.
#include "../cpp/parallel.hpp"
#include "../cpp/simd.hpp"

namespace cellvim {
namespace add_rms_norm {

constexpr int64_t CHUNK = 64;
constexpr float EPS = 1e-5f;

static float add_and_normalise(const float* tokens, const float* residual, const float* weight, int64_t width,
                               float* normed, float* stream) {
  vec squares = {};
  for_vectors(0, width, [&](int64_t e, auto lanes) {
    const vec sum = load(tokens + e, lanes) + load(residual + e, lanes);
    store(stream + e, sum, lanes);
    squares = fma(sum, sum, squares);
  });
  const float scale = 1.0f / __builtin_sqrtf(sum_of_lanes(squares) / static_cast<float>(width) + EPS);
  for_vectors(0, width, [&](int64_t e, auto lanes) {
    store(normed + e, load(stream + e, lanes) * broadcast(scale) * load(weight + e, lanes), lanes);
  });
  return scale;
}

static void back_row(const float* dnormed, const float* dstream, const float* stream, float scale,
                     const float* weight, int64_t width, float* out, float* dweight) {
  const vec by = broadcast(scale);
  vec along = {};
  for_vectors(0, width, [&](int64_t e, auto lanes) {
    const vec unit = load(stream + e, lanes) * by, grad = load(dnormed + e, lanes);
    store(dweight + e, fma(grad, unit, load(dweight + e, lanes)), lanes);
    along = fma(grad * load(weight + e, lanes), unit, along);
  });
  const vec mean = broadcast(sum_of_lanes(along) / static_cast<float>(width));
  for_vectors(0, width, [&](int64_t e, auto lanes) {
    const vec unit = load(stream + e, lanes) * by;
    const vec grad = load(dnormed + e, lanes) * load(weight + e, lanes) - unit * mean;
    store(out + e, fma(by, grad, load(dstream + e, lanes)), lanes);
  });
}

template <class Body>
static void for_each_chunk(int64_t rows, int64_t threads, Body body) {
  const int64_t chunks = (rows + CHUNK - 1) / CHUNK;
  share_out(threads, chunks, [&](Queue& queue) {
    for (int64_t chunk; queue.take(&chunk);)
      body(chunk, chunk * CHUNK, (chunk + 1) * CHUNK < rows ? (chunk + 1) * CHUNK : rows);
  });
}

}  // namespace add_rms_norm
}  // namespace cellvim

CELLVIM_EXPORT void cellvim_add_rms_norm(int64_t rows, int64_t width, int64_t threads, const float* tokens,
                                         const float* residual, const float* weight, float* normed, float* stream,
                                         float* scale) {
  using namespace cellvim::add_rms_norm;
  cellvim::expect_large(normed, rows * width);
  cellvim::expect_large(stream, rows * width);
  for_each_chunk(rows, threads, [&](int64_t, int64_t start, int64_t end) {
    for (int64_t r = start; r < end; ++r)
      scale[r] = add_and_normalise(tokens + r * width, residual + r * width, weight, width, normed + r * width,
                                   stream + r * width);
  });
}

// dweight: (chunks, d); the caller adds up the chunks.
CELLVIM_EXPORT void cellvim_add_rms_norm_backward(int64_t rows, int64_t width, int64_t threads, const float* dnormed,
                                                  const float* dstream, const float* stream, const float* scale,
                                                  const float* weight, float* out, float* dweight) {
  using namespace cellvim::add_rms_norm;
  cellvim::expect_large(out, rows * width);
  for_each_chunk(rows, threads, [&](int64_t chunk, int64_t start, int64_t end) {
    memset(dweight + chunk * width, 0, width * sizeof(float));
    for (int64_t r = start; r < end; ++r)
      back_row(dnormed + r * width, dstream + r * width, stream + r * width, scale[r], weight, width, out + r * width,
               dweight + chunk * width);
  });
}
