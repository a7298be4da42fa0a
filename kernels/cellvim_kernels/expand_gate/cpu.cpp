// From cells back to tokens: convolution again, expansion, LayerNorm and gate, in one pass over xz.
//
// BLOCK tokens at a time: first their mixed rows, a vector of the width with all its taps in registers, then row by
// row the LayerNorm and the gate, while the rows are in the cache.
#include "../cpp/sequence.hpp"

namespace cellvim {
namespace expand_gate {

constexpr int64_t BLOCK = 8, CHUNK = 64;
constexpr float EPS = 1e-5f;

struct Inputs {
  const float *xz, *y, *taps, *bias, *D, *scale, *shift;
};

struct Block {
  const float *x[2 * BLOCK + 2 * REACH], *z[BLOCK];
  const float* y[2][BLOCK];
  int64_t memory[BLOCK], tokens;

  Block(const Sequence& seq, const Inputs& in, int64_t sample, int64_t start, int64_t end, const float* zeros)
      : tokens(end - start < BLOCK ? end - start : BLOCK) {
    const int32_t* order = seq.memory_of(sample);
    const float* base = in.xz + sample * seq.length * 2 * seq.width;
    for (int64_t i = 0; i < 2 * (BLOCK + REACH); ++i) {
      const int64_t s = start - REACH + i;
      x[i] = s >= 0 && s < seq.length ? base + order[s] * 2 * seq.width : zeros;
    }
    for (int64_t i = 0; i < tokens; ++i) {
      memory[i] = sample * seq.length + order[start + i];
      z[i] = base + order[start + i] * 2 * seq.width + seq.width;
      for (int way = 0; way < 2; ++way)
        y[way][i] = seq.cells_of(in.y, way, sample) + seq.cell_of(way, sample)[start + i] * seq.width;
    }
  }
};

struct Moments {
  float mean = 0, rstd = 1;
};

// Of all rows of a block at once, as each is one long chain of additions. Mean first, then squares about it: no
// cancellation where the mean is large. Rows that the last block lacks hold whatever was there.
static void find_moments(const float* rows, int64_t width, Moments* found) {
  const float size = static_cast<float>(width);
  vec total[BLOCK] = {}, squares[BLOCK] = {};
  for_vectors(0, width, [&](int64_t e, auto lanes) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < BLOCK; ++i) total[i] = total[i] + load(rows + i * width + e, lanes);
  });
  for (int64_t i = 0; i < BLOCK; ++i) found[i].mean = sum_of_lanes(total[i]) / size;
  for_vectors(0, width, [&](int64_t e, auto lanes) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < BLOCK; ++i) {
      const vec centred = only(load(rows + i * width + e, lanes) - broadcast(found[i].mean), lanes);
      squares[i] = fma(centred, centred, squares[i]);
    }
  });
  for (int64_t i = 0; i < BLOCK; ++i) found[i].rstd = 1.0f / __builtin_sqrtf(sum_of_lanes(squares[i]) / size + EPS);
}

// mixed = 0.5 (y_0[cell] + y_1[cell] + D_0 v_0 + D_1 v_1) of each token of a block, and its moments if they are
// needed. `ahead` is another tensor that will be read at the same tokens.
static void mix(const Sequence& seq, const Inputs& in, const Block& block, const float* ahead, float* mixed,
                Moments* found) {
  const int64_t width = seq.width;
  const vec half = broadcast(0.5f);
  for_vectors(0, width, [&](int64_t e, auto lanes) {
    const Taps w(in.taps, in.bias, width, e, lanes);
    const vec D0 = half * load(in.D + e, lanes), D1 = half * load(in.D + width + e, lanes);
    vec x[2 * REACH + 1];
    for (int k = 0; k < 2 * REACH; ++k) x[k + 1] = load(block.x[k] + e, lanes);
    for (int64_t i = 0; i < block.tokens; ++i) {
      for (int k = 0; k < 2 * REACH; ++k) x[k] = x[k + 1];
      x[6] = load(block.x[i + 2 * REACH] + e, lanes);
      fetch(block.x[i + 2 * REACH + BLOCK] + e);
      fetch(block.z[i] + e);
      if (ahead != nullptr) fetch(ahead + block.memory[i] * width + e);
      const vec v0 = silu(convolve(w.bias[0], w.tap[0], x[0], x[1], x[2], x[3]));
      const vec v1 = silu(convolve(w.bias[1], w.tap[1], x[6], x[5], x[4], x[3]));
      const vec global_part = load(block.y[0][i] + e, lanes) + load(block.y[1][i] + e, lanes);
      store(mixed + i * width + e, fma(half, global_part, fma(D0, v0, D1 * v1)), lanes);
    }
  });
  if (in.scale != nullptr) find_moments(mixed, width, found);
}

static void gate_row(const float* mixed, Moments m, const float* z, const float* scale, const float* shift,
                     int64_t width, float* out) {
  const vec rstd = broadcast(m.rstd), minus_mean = broadcast(-m.mean * m.rstd);
  for_vectors(0, width, [&](int64_t e, auto lanes) {
    vec value = load(mixed + e, lanes);
    if (scale != nullptr) value = fma(fma(value, rstd, minus_mean), load(scale + e, lanes), load(shift + e, lanes));
    store(out + e, value * silu(load(z + e, lanes)), lanes);
  });
}

// Of a token: dz, the gradient of the mixed row, and its terms of the norm's gradients (sums: scale, then shift).
static void back_row(float* mixed, Moments m, const float* z, const float* dout, const float* scale,
                     const float* shift, int64_t width, float* dz, float* dmixed, float* sums) {
  const bool has_norm = scale != nullptr;
  const vec rstd = broadcast(m.rstd), minus_mean = broadcast(-m.mean * m.rstd);
  vec total = {}, along = {};
  for_vectors(0, width, [&](int64_t e, auto lanes) {
    const vec gate = load(z + e, lanes), grad = load(dout + e, lanes), s = sigmoid(gate);
    vec value = load(mixed + e, lanes), dvalue = grad * (gate * s);
    if (has_norm) {
      const vec normed = fma(value, rstd, minus_mean), weight = load(scale + e, lanes);
      value = fma(normed, weight, load(shift + e, lanes));
      store(sums + e, fma(dvalue, normed, load(sums + e, lanes)), lanes);
      store(sums + width + e, load(sums + width + e, lanes) + dvalue, lanes);
      dvalue = dvalue * weight;
      store(mixed + e, normed, lanes);
      total = total + only(dvalue, lanes);
      along = fma(only(dvalue, lanes), normed, along);
    }
    store(dz + e, grad * value * silu_slope(gate, s), lanes);
    store(dmixed + e, dvalue, lanes);
  });
  if (!has_norm) return;
  const vec mean_total = broadcast(sum_of_lanes(total) / static_cast<float>(width));
  const vec mean_along = broadcast(sum_of_lanes(along) / static_cast<float>(width));
  for_vectors(0, width, [&](int64_t e, auto lanes) {
    const vec centred = load(dmixed + e, lanes) - mean_total;
    store(dmixed + e, rstd * (centred - load(mixed + e, lanes) * mean_along), lanes);
  });
}

// Run body(sample, start, end, chunk, zeros, mixed) for all chunks of CHUNK positions.
template <class Body>
static void for_each_chunk(const Sequence& seq, int64_t threads, Body body) {
  const int64_t chunks = (seq.length + CHUNK - 1) / CHUNK;
  share_out(threads, seq.batch * chunks, [&](Queue& queue) {
    const Scratch scratch((1 + BLOCK) * seq.width + 16);
    for (int64_t task; queue.take(&task);) {
      const int64_t start = task % chunks * CHUNK;
      const int64_t end = start + CHUNK < seq.length ? start + CHUNK : seq.length;
      body(task / chunks, start, end, task, scratch.data, scratch.data + seq.width);
    }
  });
}

static void sum_members(const Sequence& seq, int64_t way, int64_t sample, int64_t p, const float* dmixed,
                        float* out) {
  const int32_t *first = seq.first_of(way, sample), *member = seq.members_of(way, sample);
  const float* base = dmixed + sample * seq.length * seq.width;
  memset(out, 0, seq.width * sizeof(float));
  for (int64_t k = first[p]; k < first[p + 1]; ++k) {
    const float* row = base + member[k] * seq.width;
    for_vectors(0, seq.width, [&](int64_t e, auto lanes) {
      store(out + e, fma(broadcast(0.5f), load(row + e, lanes), load(out + e, lanes)), lanes);
    });
  }
}

}  // namespace expand_gate
}  // namespace cellvim

CELLVIM_EXPORT void cellvim_expand_gate(const cellvim::Sequence* seq, int64_t threads,
                                        const cellvim::expand_gate::Inputs* in, float* out) {
  using namespace cellvim::expand_gate;
  cellvim::expect_large(out, seq->batch * seq->length * seq->width);
  for_each_chunk(*seq, threads,
                 [&](int64_t sample, int64_t start, int64_t end, int64_t, const float* zeros, float* mixed) {
                   for (int64_t s = start; s < end; s += BLOCK) {
                     const Block block(*seq, *in, sample, s, end, zeros);
                     Moments found[BLOCK];
                     mix(*seq, *in, block, nullptr, mixed, found);
                     for (int64_t i = 0; i < block.tokens; ++i)
                       gate_row(mixed + i * seq->width, found[i], block.z[i], in->scale, in->shift, seq->width,
                                out + block.memory[i] * seq->width);
                   }
                 });
}

// sums: (b * chunks, 2, E), gradients of scale and shift; the caller adds up the chunks.
CELLVIM_EXPORT void cellvim_expand_gate_backward(const cellvim::Sequence* seq, int64_t threads,
                                                 const cellvim::expand_gate::Inputs* in, const float* dout,
                                                 float* dxz, float* dmixed, float* sums) {
  using namespace cellvim::expand_gate;
  const int64_t width = seq->width;
  cellvim::expect_large(dxz, seq->batch * seq->length * 2 * width);
  cellvim::expect_large(dmixed, seq->batch * seq->length * width);
  for_each_chunk(*seq, threads,
                 [&](int64_t sample, int64_t start, int64_t end, int64_t chunk, const float* zeros, float* mixed) {
                   float* chunk_sums = in->scale != nullptr ? sums + chunk * 2 * width : nullptr;
                   if (chunk_sums != nullptr) memset(chunk_sums, 0, 2 * width * sizeof(float));
                   for (int64_t s = start; s < end; s += BLOCK) {
                     const Block block(*seq, *in, sample, s, end, zeros);
                     Moments found[BLOCK];
                     mix(*seq, *in, block, dout, mixed, found);
                     for (int64_t i = 0; i < block.tokens; ++i)
                       back_row(mixed + i * width, found[i], block.z[i], dout + block.memory[i] * width, in->scale,
                                in->shift, width, dxz + block.memory[i] * 2 * width + width,
                                dmixed + (sample * seq->length + s + i) * width, chunk_sums);
                   }
                 });
}

// dy: (G, b, P, E).
CELLVIM_EXPORT void cellvim_sum_cells(const cellvim::Sequence* seq, int64_t threads, const float* dmixed, float* dy) {
  using namespace cellvim;
  constexpr int64_t CELLS = 8;
  const int64_t groups = (seq->cells + CELLS - 1) / CELLS;
  share_out(threads, seq->directions * seq->batch * groups, [&](Queue& queue) {
    for (int64_t task; queue.take(&task);) {
      const int64_t way = task / groups / seq->batch, sample = task / groups % seq->batch;
      const int64_t start = task % groups * CELLS;
      const int64_t end = start + CELLS < seq->cells ? start + CELLS : seq->cells;
      for (int64_t p = start; p < end; ++p)
        expand_gate::sum_members(*seq, way, sample, p, dmixed, seq->cells_of(dy, way, sample) + p * seq->width);
    }
  });
}
