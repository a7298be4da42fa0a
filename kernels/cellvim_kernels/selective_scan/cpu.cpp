// Both scans over the cells, the states of one vector of the width in registers.
//
// A chunk of steps is walked vector by vector of the width, then the next chunk: rows of u and step are read in
// order, and the states at the borders of chunks, which the backward pass starts from, are where the loop keeps them
// anyway.
#include "../cpp/parallel.hpp"
#include "../cpp/simd.hpp"

namespace cellvim {
namespace selective_scan {

constexpr int64_t CHUNK = 16, MOST_STATES = 256;
// Width of a piece whose products with the states are summed to dB and dC: fixed, as the order of that sum shows.
constexpr int64_t PIECE = 128;

// As cpp.py fills it. Rates are A log2(e), laid out (2, N, E); B and C have a stride per direction, sample and cell.
struct Scan {
  const float *u, *step, *bias, *rates, *B, *C;
  int64_t B_strides[3], C_strides[3];
  int64_t batch, cells, width, states;

  int64_t chunks() const { return (cells + CHUNK - 1) / CHUNK; }
  // Cell of a step: direction 1 starts at the last one.
  int64_t at(int64_t way, int64_t t) const { return way == 0 ? t : cells - 1 - t; }
  int64_t row(int64_t way, int64_t sample, int64_t t) const {
    return ((way * batch + sample) * cells + at(way, t)) * width;
  }
  const float* B_at(int64_t way, int64_t sample, int64_t t) const {
    return B + way * B_strides[0] + sample * B_strides[1] + at(way, t) * B_strides[2];
  }
  const float* C_at(int64_t way, int64_t sample, int64_t t) const {
    return C + way * C_strides[0] + sample * C_strides[1] + at(way, t) * C_strides[2];
  }
  int64_t start(int64_t way, int64_t sample, int64_t chunk) const {
    return ((way * batch + sample) * chunks() + chunk) * states * width;
  }
};

// One vector of the width through one chunk. KNOWN is the number of states if it is known when compiling, else 0.
template <int KNOWN, class Lanes>
static void scan_chunk(const Scan& scan, int64_t way, int64_t sample, int64_t chunk, int64_t e, Lanes lanes,
                       const float* before, float* after, float* y) {
  const int64_t states = KNOWN ? KNOWN : scan.states, width = scan.width;
  const vec bias = load(scan.bias + way * width + e, lanes);
  const float* rates = scan.rates + way * states * width + e;
  vec rate[KNOWN ? KNOWN : MOST_STATES], h[KNOWN ? KNOWN : MOST_STATES];
  for (int64_t n = 0; n < states; ++n) {
    rate[n] = load(rates + n * width, lanes);
    h[n] = load(before + n * width + e, lanes);
  }
  const int64_t first = chunk * CHUNK, last = first + CHUNK < scan.cells ? first + CHUNK : scan.cells;
  for (int64_t t = first; t < last; ++t) {
    const int64_t row = scan.row(way, sample, t) + e;
    const float *B = scan.B_at(way, sample, t), *C = scan.C_at(way, sample, t);
    // The next vector's; a row is too far from the last for the processor to guess.
    fetch(scan.step + row + W), fetch(scan.u + row + W), fetch_to_write(y + row + W);
    const vec delta = softplus(load(scan.step + row, lanes) + bias);
    const vec driven = delta * load(scan.u + row, lanes);
    vec sum = {};
    for (int64_t n = 0; n < states; ++n) {
      h[n] = fma(exp2(delta * rate[n]), h[n], driven * broadcast(B[n]));
      sum = fma(h[n], broadcast(C[n]), sum);
    }
    store(y + row, sum, lanes);
  }
  for (int64_t n = 0; n < states; ++n) store(after + n * width + e, h[n], lanes);
}

// `starts` holds the state before each chunk; without it, `state` holds the present one.
template <int KNOWN>
static void scan_piece(const Scan& scan, int64_t way, int64_t sample, int64_t e0, int64_t e1, float* state,
                       float* starts, float* y) {
  for (int64_t n = 0; starts != nullptr && n < scan.states; ++n)
    memset(starts + scan.start(way, sample, 0) + n * scan.width + e0, 0, (e1 - e0) * sizeof(float));
  for (int64_t n = 0; n < scan.states; ++n) memset(state + n * scan.width + e0, 0, (e1 - e0) * sizeof(float));
  for (int64_t chunk = 0; chunk < scan.chunks(); ++chunk) {
    const bool is_last = chunk + 1 == scan.chunks();
    float* before = starts == nullptr ? state : starts + scan.start(way, sample, chunk);
    float* after = starts == nullptr || is_last ? state : starts + scan.start(way, sample, chunk + 1);
    for_vectors(e0, e1, [&](int64_t e, auto lanes) {
      scan_chunk<KNOWN>(scan, way, sample, chunk, e, lanes, before, after, y);
    });
  }
}

// Where a piece's gradients go. dA is (2, b, N, E): the caller adds up the samples. dB and dC are
// (pieces, 2, b, P, N): the caller adds up the pieces.
struct Gradients {
  const float *dy, *starts;
  int64_t dy_directions;
  float *du, *dstep, *dA, *dB, *dC;
};

// What the steps of a chunk leave for their reversal, for one vector of the width.
template <int KNOWN>
struct Steps {
  static constexpr int64_t N = KNOWN ? KNOWN : MOST_STATES;
  vec h[CHUNK + 1][N], decay[CHUNK][N];
  vec u[CHUNK], delta[CHUNK], slope[CHUNK];
};

template <int KNOWN, class Lanes>
static void repeat_chunk(const Scan& scan, int64_t way, int64_t sample, int64_t first, int64_t last, int64_t e,
                         Lanes lanes, const float* start, Steps<KNOWN>& steps) {
  const int64_t states = KNOWN ? KNOWN : scan.states, width = scan.width;
  const vec bias = load(scan.bias + way * width + e, lanes);
  const float* rates = scan.rates + way * states * width + e;
  vec rate[KNOWN ? KNOWN : MOST_STATES];
  for (int64_t n = 0; n < states; ++n) {
    rate[n] = load(rates + n * width, lanes);
    steps.h[0][n] = load(start + n * width + e, lanes);
    fetch(start + n * width + e + W);
  }
  for (int64_t t = first; t < last; ++t) {
    const int64_t row = scan.row(way, sample, t) + e, i = t - first;
    const float* B = scan.B_at(way, sample, t);
    fetch(scan.step + row + W), fetch(scan.u + row + W);
    const vec before = load(scan.step + row, lanes) + bias;
    const vec delta = softplus(before), u = load(scan.u + row, lanes);
    steps.u[i] = u, steps.delta[i] = delta, steps.slope[i] = sigmoid(before);
    const vec driven = delta * u;
    for (int64_t n = 0; n < states; ++n) {
      steps.decay[i][n] = exp2(delta * rate[n]);
      steps.h[i + 1][n] = fma(steps.decay[i][n], steps.h[i][n], driven * broadcast(B[n]));
    }
  }
}

// `products` collects, per step and state, the terms of dB and dC by lane; `dh` the gradient of the states.
template <int KNOWN, class Lanes>
static void reverse_chunk(const Scan& scan, int64_t way, int64_t sample, int64_t first, int64_t last, int64_t e,
                          Lanes lanes, const Steps<KNOWN>& steps, const Gradients& to, float* dhs, float* dA,
                          vec* products) {
  const int64_t states = KNOWN ? KNOWN : scan.states, width = scan.width;
  const int64_t shift = to.dy_directions == 2 ? 0 : way * scan.batch * scan.cells * width;
  const float* rates = scan.rates + way * states * width + e;
  // Copies side by side: rows of these tensors lie so far apart that they would push each other out of the cache.
  constexpr int64_t N = KNOWN ? KNOWN : MOST_STATES;
  vec dh[N], rate[N], drate[N];
  for (int64_t n = 0; n < states; ++n) {
    dh[n] = load(dhs + n * width + e, lanes);
    rate[n] = load(rates + n * width, lanes);
    drate[n] = load(dA + n * width + e, lanes);
  }
  for (int64_t t = last - 1; t >= first; --t) {
    const int64_t row = scan.row(way, sample, t) + e, i = t - first;
    const float *B = scan.B_at(way, sample, t), *C = scan.C_at(way, sample, t);
    fetch(to.dy + row - shift + W), fetch_to_write(to.du + row + W), fetch_to_write(to.dstep + row + W);
    const vec dy = load(to.dy + row - shift, lanes);
    const vec delta = steps.delta[i], driven = delta * steps.u[i];
    vec ddriven = {}, dexponent = {};
    vec* product = products + i * 2 * states;
    for (int64_t n = 0; n < states; ++n) {
      vec grad = fma(broadcast(C[n]), dy, dh[n]);
      product[n] = fma(driven, grad, product[n]);
      product[states + n] = fma(dy, steps.h[i + 1][n], product[states + n]);
      ddriven = fma(broadcast(B[n]), grad, ddriven);
      grad = grad * steps.decay[i][n];
      dh[n] = grad;
      const vec term = grad * steps.h[i][n];
      drate[n] = fma(term, delta, drate[n]);
      dexponent = fma(term, rate[n], dexponent);
    }
    const vec ddelta = fma(ddriven, steps.u[i], dexponent * broadcast(LN_2));
    store(to.du + row, ddriven * delta, lanes);
    store(to.dstep + row, ddelta * steps.slope[i], lanes);
  }
  for (int64_t n = 0; n < states; ++n) {
    store(dhs + n * width + e, dh[n], lanes);
    store(dA + n * width + e, drate[n], lanes);
  }
}

template <int KNOWN>
static void back_piece(const Scan& scan, int64_t way, int64_t sample, int64_t piece, const Gradients& to, float* dhs,
                       Steps<KNOWN>& steps, vec* products) {
  const int64_t e0 = piece * PIECE, e1 = e0 + PIECE < scan.width ? e0 + PIECE : scan.width, N = scan.states;
  const int64_t sums = ((piece * 2 + way) * scan.batch + sample) * scan.cells;
  float* dA = to.dA + (way * scan.batch + sample) * N * scan.width;
  for (int64_t n = 0; n < N; ++n) {
    memset(dA + n * scan.width + e0, 0, (e1 - e0) * sizeof(float));
    memset(dhs + n * scan.width + e0, 0, (e1 - e0) * sizeof(float));
  }
  for (int64_t chunk = scan.chunks() - 1; chunk >= 0; --chunk) {
    const int64_t first = chunk * CHUNK, last = first + CHUNK < scan.cells ? first + CHUNK : scan.cells;
    const float* start = to.starts + scan.start(way, sample, chunk);
    for (int64_t i = 0; i < (last - first) * 2 * N; ++i) products[i] = vec{};
    for_vectors(e0, e1, [&](int64_t e, auto lanes) {
      repeat_chunk<KNOWN>(scan, way, sample, first, last, e, lanes, start, steps);
      reverse_chunk<KNOWN>(scan, way, sample, first, last, e, lanes, steps, to, dhs, dA, products);
    });
    for (int64_t t = first; t < last; ++t)
      for (int64_t n = 0; n < N; ++n) {
        const int64_t place = (sums + scan.at(way, t)) * N + n;
        to.dB[place] = sum_of_lanes(products[(t - first) * 2 * N + n]);
        to.dC[place] = sum_of_lanes(products[(t - first) * 2 * N + N + n]);
      }
  }
}

template <int KNOWN>
static void back_all(const Scan& scan, int64_t threads, const Gradients& to) {
  const int64_t pieces = (scan.width + PIECE - 1) / PIECE, per_steps = sizeof(Steps<KNOWN>) / sizeof(float);
  share_out(threads, 2 * scan.batch * pieces, [&](Queue& queue) {
    const int64_t per_products = CHUNK * 2 * scan.states * W;
    const Scratch scratch(per_steps + per_products + scan.states * scan.width);
    Steps<KNOWN>& steps = *reinterpret_cast<Steps<KNOWN>*>(scratch.data);
    vec* products = reinterpret_cast<vec*>(scratch.data + per_steps);
    float* dhs = scratch.data + per_steps + per_products;
    for (int64_t task; queue.take(&task);) {
      const int64_t row = task / pieces;
      back_piece<KNOWN>(scan, row / scan.batch, row % scan.batch, task % pieces, to, dhs, steps, products);
    }
  });
}

}  // namespace selective_scan
}  // namespace cellvim

CELLVIM_EXPORT void cellvim_selective_scan(const cellvim::selective_scan::Scan* given, int64_t threads, float* y,
                                           float* starts) {
  using namespace cellvim;
  using namespace cellvim::selective_scan;
  const Scan& scan = *given;
  const int64_t vectors = (scan.width + W - 1) / W;
  const int64_t pieces = pieces_of_width(2 * scan.batch, vectors, threads);
  share_out(threads, 2 * scan.batch * pieces, [&](Queue& queue) {
    const Scratch state(scan.states * scan.width);
    const auto run = scan.states == 16 ? scan_piece<16> : scan_piece<0>;
    for (int64_t task; queue.take(&task);) {
      const int64_t row = task / pieces, piece = task % pieces;
      const int64_t e0 = vectors * piece / pieces * W, e1 = vectors * (piece + 1) / pieces * W;
      run(scan, row / scan.batch, row % scan.batch, e0, e1 < scan.width ? e1 : scan.width, state.data, starts, y);
    }
  });
}

CELLVIM_EXPORT void cellvim_selective_scan_backward(const cellvim::selective_scan::Scan* scan, int64_t threads,
                                                    const cellvim::selective_scan::Gradients* gradients) {
  using namespace cellvim::selective_scan;
  const auto run = scan->states == 16 ? back_all<16> : back_all<0>;
  run(*scan, threads, *gradients);
}