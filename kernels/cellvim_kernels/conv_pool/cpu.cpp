// Both convolutions, SiLU and pooling in one pass over x, and their gradient in one pass over x and dmixed.
//
// A block of BLOCK tokens is walked vector by vector of the width, with the last taps in registers: x is read once
// from memory, a row at a time for the memory system, a column at a time for the registers. At step t the forward
// direction computes position t and the backward direction, which looks ahead, position t - 3, from the same window.
#include "../cpp/sequence.hpp"

namespace cellvim {
namespace conv_pool {

constexpr int64_t BLOCK = 16;

// Rows of x in the order of the sequence; zeros outside of it.
struct Rows {
  const float* row[2 * BLOCK + REACH];
  Rows(const Sequence& seq, const float* xz, int64_t sample, int64_t start, const float* zeros) {
    const int32_t* memory = seq.memory_of(sample);
    const float* base = xz + sample * seq.length * 2 * seq.width;
    for (int64_t i = 0; i < 2 * BLOCK + REACH; ++i) {
      const int64_t s = start - REACH + i;
      row[i] = s >= 0 && s < seq.length ? base + memory[s] * 2 * seq.width : zeros;
    }
  }
  const float* at(int64_t offset) const { return row[offset + REACH]; }
};

template <bool IS_MAX, class Lanes>
CELLVIM_INLINE void add_to_cell(float* pooled, float* ties, int64_t place, vec v, Lanes lanes) {
  const vec before = load(pooled + place, lanes);
  if (!IS_MAX) {
    store(pooled + place, before + v, lanes);
    return;
  }
  const vec count = load(ties + place, lanes), one = broadcast(1.0f);
  // A NaN wins, and stays.
  const vec is_larger = v > before ? one : (v != v ? one : vec{});
  store(pooled + place, is_larger != vec{} ? v : before, lanes);
  store(ties + place, is_larger != vec{} ? one : (v == before ? count + one : count), lanes);
}

template <bool IS_MAX>
static void start_cells(const Sequence& seq, int64_t sample, float* pooled, float* ties, int64_t e0, int64_t e1) {
  for (int way = 0; way < 2; ++way)
    for (int64_t p = 0; p < seq.cells; ++p) {
      float* row = seq.cells_of(pooled, way, sample) + p * seq.width;
      for (int64_t e = e0; e < e1; ++e) row[e] = IS_MAX ? -__builtin_inff() : 0.0f;
      if (IS_MAX) memset(seq.cells_of(ties, way, sample) + p * seq.width + e0, 0, (e1 - e0) * sizeof(float));
    }
}

template <bool IS_MAX>
static void finish_cells(const Sequence& seq, int64_t sample, float* pooled, int64_t e0, int64_t e1) {
  for (int way = 0; way < 2; ++way) {
    const float* share = seq.share_of(way, sample);
    const int32_t* first = seq.first_of(way, sample);
    for (int64_t p = 0; p < seq.cells; ++p) {
      float* row = seq.cells_of(pooled, way, sample) + p * seq.width;
      if (!IS_MAX)
        for (int64_t e = e0; e < e1; ++e) row[e] *= share[p];
      else if (first[p] == first[p + 1])
        memset(row + e0, 0, (e1 - e0) * sizeof(float));
    }
  }
}

template <bool IS_MAX>
static void pool_sample(const Sequence& seq, int64_t sample, const float* xz, const float* taps, const float* bias,
                        float* pooled, float* ties, const float* zeros, int64_t e0, int64_t e1) {
  const int64_t width = seq.width;
  const int32_t* cell[2] = {seq.cell_of(0, sample), seq.cell_of(1, sample)};
  float *sums[2], *counts[2];
  for (int way = 0; way < 2; ++way) {
    sums[way] = seq.cells_of(pooled, way, sample);
    counts[way] = IS_MAX ? seq.cells_of(ties, way, sample) : nullptr;
  }
  start_cells<IS_MAX>(seq, sample, pooled, ties, e0, e1);
  const int64_t last = seq.length + REACH;
  for (int64_t start = 0; start < last; start += BLOCK) {
    const Rows rows(seq, xz, sample, start, zeros);
    const int64_t steps = last - start < BLOCK ? last - start : BLOCK;
    for_vectors(e0, e1, [&](int64_t e, auto lanes) {
      const Taps w(taps, bias, width, e, lanes);
      vec x3 = load(rows.at(-3) + e, lanes), x2 = load(rows.at(-2) + e, lanes), x1 = load(rows.at(-1) + e, lanes);
      const auto step = [&](int64_t i, bool is_ahead, bool is_back) {
        const vec x0 = load(rows.at(i) + e, lanes);
        fetch(rows.at(i + BLOCK) + e);
        const int64_t t = start + i;
        if (is_ahead) {
          const vec v = silu(convolve(w.bias[0], w.tap[0], x3, x2, x1, x0));
          add_to_cell<IS_MAX>(sums[0], counts[0], cell[0][t] * width + e, v, lanes);
        }
        if (is_back) {
          const vec v = silu(convolve(w.bias[1], w.tap[1], x0, x1, x2, x3));
          add_to_cell<IS_MAX>(sums[1], counts[1], cell[1][t - REACH] * width + e, v, lanes);
        }
        x3 = x2, x2 = x1, x1 = x0;
      };
      // Without branches, and two steps at a time: there is more to do while one waits for its division.
      if (start >= REACH && start + BLOCK <= seq.length) {
#pragma GCC unroll 2
        for (int64_t i = 0; i < BLOCK; ++i) step(i, true, true);
      } else {
        for (int64_t i = 0; i < steps; ++i) step(i, start + i < seq.length, start + i >= REACH);
      }
    });
  }
  finish_cells<IS_MAX>(seq, sample, pooled, e0, e1);
}

// What one position passes on to its convolution: gradient before the SiLU, and the term of dD.
struct Passed {
  vec da, dD;
};

struct Gradients {
  const float *pooled, *ties, *dpooled, *dmixed;
};

template <bool IS_MAX, class Lanes>
CELLVIM_INLINE Passed pass_back(vec a, const Gradients& from, float share, int64_t place, const float* dmixed,
                                vec half_D, Lanes lanes) {
  // The maximum was found among values of silu(): only the same operations give the same bits.
  const vec s = sigmoid(a), v = IS_MAX ? silu(a) : a * s;
  const vec dm = load(dmixed, lanes);
  const vec dp = load(from.dpooled + place, lanes);
  vec dv = half_D * dm;
  if (IS_MAX) {
    const vec part = dp / load(from.ties + place, lanes);
    dv = v == load(from.pooled + place, lanes) ? dv + part : dv;
  } else {
    dv = fma(broadcast(share), dp, dv);
  }
  return {dv * silu_slope(a, s), dm * v};
}

// Rows of a sample's partial sums: taps of direction 0, of direction 1, biases, D.
constexpr int64_t SUMS = 2 * TAPS + 4, CARRIED = 2 * REACH;

template <bool IS_MAX>
static void back_sample(const Sequence& seq, int64_t sample, const float* xz, const float* taps, const float* bias,
                        const float* D, const Gradients& all, float* dxz, float* sums, float* carry,
                        const float* zeros, int64_t e0, int64_t e1) {
  const int64_t width = seq.width, length = seq.length;
  const int32_t *cell[2], *memory = seq.memory_of(sample);
  const float* share[2];
  Gradients from[2];
  for (int way = 0; way < 2; ++way) {
    cell[way] = seq.cell_of(way, sample), share[way] = seq.share_of(way, sample);
    from[way].dpooled = seq.cells_of(all.dpooled, way, sample);
    from[way].pooled = seq.cells_of(all.pooled, way, sample);
    from[way].ties = IS_MAX ? seq.cells_of(all.ties, way, sample) : nullptr;
  }
  const float* dmixed = all.dmixed + sample * length * width;
  float* dx = dxz + sample * length * 2 * width;
  for (int64_t i = 0; i < SUMS; ++i) memset(sums + i * width + e0, 0, (e1 - e0) * sizeof(float));
  for (int64_t i = 0; i < CARRIED; ++i) memset(carry + i * width + e0, 0, (e1 - e0) * sizeof(float));
  const int64_t last = length + REACH;
  for (int64_t start = 0; start < last; start += BLOCK) {
    const Rows rows(seq, xz, sample, start, zeros);
    const int64_t steps = last - start < BLOCK ? last - start : BLOCK;
    for_vectors(e0, e1, [&](int64_t e, auto lanes) {
      const Taps w(taps, bias, width, e, lanes);
      const vec half = broadcast(0.5f);
      const vec half_D[2] = {half * load(D + e, lanes), half * load(D + width + e, lanes)};
      vec x3 = load(rows.at(-3) + e, lanes), x2 = load(rows.at(-2) + e, lanes), x1 = load(rows.at(-1) + e, lanes);
      vec f[CARRIED], sum[SUMS];
      for (int64_t k = 0; k < CARRIED; ++k) f[k] = load(carry + k * width + e, lanes);
      for (int64_t k = 0; k < SUMS; ++k) sum[k] = load(sums + k * width + e, lanes);
      // f[0..2]: gradients of direction 0 at t-1, t-2, t-3; f[3..5]: of direction 1 at t-4, t-5, t-6.
      for (int64_t i = 0; i < steps; ++i) {
        const vec x0 = load(rows.at(i) + e, lanes);
        fetch(rows.at(i + BLOCK) + e);
        const int64_t t = start + i, p = t - REACH;
        vec ahead = {}, back = {};
        if (t < length) {
          if (t + BLOCK < length) fetch(dmixed + (t + BLOCK) * width + e);
          const vec a = convolve(w.bias[0], w.tap[0], x3, x2, x1, x0);
          const Passed passed = pass_back<IS_MAX>(a, from[0], share[0][cell[0][t]], cell[0][t] * width + e,
                                                  dmixed + t * width + e, half_D[0], lanes);
          ahead = passed.da;
          sum[0] = fma(ahead, x3, sum[0]), sum[1] = fma(ahead, x2, sum[1]);
          sum[2] = fma(ahead, x1, sum[2]), sum[3] = fma(ahead, x0, sum[3]);
          sum[8] = sum[8] + ahead, sum[10] = sum[10] + passed.dD;
        }
        if (p >= 0) {
          const vec a = convolve(w.bias[1], w.tap[1], x0, x1, x2, x3);
          const Passed passed = pass_back<IS_MAX>(a, from[1], share[1][cell[1][p]], cell[1][p] * width + e,
                                                  dmixed + p * width + e, half_D[1], lanes);
          back = passed.da;
          sum[4] = fma(back, x0, sum[4]), sum[5] = fma(back, x1, sum[5]);
          sum[6] = fma(back, x2, sum[6]), sum[7] = fma(back, x3, sum[7]);
          sum[9] = sum[9] + back, sum[11] = sum[11] + passed.dD;
          // Each tap gives back to the token that it met.
          const vec from_ahead = convolve(vec{}, w.tap[0], ahead, f[0], f[1], f[2]);
          store(dx + memory[p] * 2 * width + e, convolve(from_ahead, w.tap[1], f[5], f[4], f[3], back), lanes);
        }
        f[2] = f[1], f[1] = f[0], f[0] = ahead;
        if (p >= 0) f[5] = f[4], f[4] = f[3], f[3] = back;
        x3 = x2, x2 = x1, x1 = x0;
      }
      for (int64_t k = 0; k < CARRIED; ++k) store(carry + k * width + e, f[k], lanes);
      for (int64_t k = 0; k < SUMS; ++k) store(sums + k * width + e, sum[k], lanes);
    });
  }
}

// Run body(sample, first channel, last channel, zeros, scratch) for all samples and pieces of the width.
template <class Body>
static void for_each_piece(const Sequence& seq, int64_t threads, Body body) {
  const int64_t vectors = (seq.width + W - 1) / W;
  const int64_t pieces = pieces_of_width(seq.batch, vectors, threads);
  share_out(threads, seq.batch * pieces, [&](Queue& queue) {
    const Scratch scratch((1 + CARRIED) * seq.width);
    for (int64_t task; queue.take(&task);) {
      const int64_t piece = task % pieces;
      const int64_t e0 = vectors * piece / pieces * W, e1 = vectors * (piece + 1) / pieces * W;
      body(task / pieces, e0, e1 < seq.width ? e1 : seq.width, scratch.data, scratch.data + seq.width);
    }
  });
}

}  // namespace conv_pool
}  // namespace cellvim

CELLVIM_EXPORT void cellvim_conv_pool(const cellvim::Sequence* seq, int64_t threads, int64_t is_max, const float* xz,
                                      const float* taps, const float* bias, float* pooled, float* ties) {
  using namespace cellvim::conv_pool;
  for_each_piece(*seq, threads, [&](int64_t sample, int64_t e0, int64_t e1, const float* zeros, float*) {
    const auto pool = is_max ? pool_sample<true> : pool_sample<false>;
    pool(*seq, sample, xz, taps, bias, pooled, ties, zeros, e0, e1);
  });
}

// sums: (b, 12, E), see SUMS; the caller adds up the samples.
CELLVIM_EXPORT void cellvim_conv_pool_backward(const cellvim::Sequence* seq, int64_t threads, int64_t is_max,
                                               const float* xz, const float* taps, const float* bias, const float* D,
                                               const float* pooled, const float* ties, const float* dpooled,
                                               const float* dmixed, float* dxz, float* sums) {
  using namespace cellvim::conv_pool;
  const Gradients all{pooled, ties, dpooled, dmixed};
  for_each_piece(*seq, threads, [&](int64_t sample, int64_t e0, int64_t e1, const float* zeros, float* carry) {
    const auto back = is_max ? back_sample<true> : back_sample<false>;
    back(*seq, sample, xz, taps, bias, D, all, dxz, sums + sample * SUMS * seq->width, carry, zeros, e0, e1);
  });
}
