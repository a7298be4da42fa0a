// The sequence as the tables describe it, its rows in memory, and the convolution along it.
#pragma once

#include "parallel.hpp"
#include "simd.hpp"

namespace cellvim {

// As cpp/call.py fills it. `tables` is 1 if all samples are alike, else the batch; `directions` 1 or 2.
struct Sequence {
  const int32_t *memory, *cell, *members, *first;
  const float* share;
  int64_t tables, directions, batch, length, cells, width;

  int64_t table(int64_t way, int64_t sample) const {
    return (directions == 2 ? way : 0) * tables + (tables > 1 ? sample : 0);
  }
  const int32_t* memory_of(int64_t sample) const { return memory + (tables > 1 ? sample * length : 0); }
  const int32_t* cell_of(int64_t way, int64_t sample) const { return cell + table(way, sample) * length; }
  const int32_t* members_of(int64_t way, int64_t sample) const { return members + table(way, sample) * length; }
  const int32_t* first_of(int64_t way, int64_t sample) const { return first + table(way, sample) * (cells + 1); }
  const float* share_of(int64_t way, int64_t sample) const { return share + table(way, sample) * cells; }
  // Rows of (2, b, P, E).
  float* cells_of(float* tensor, int64_t way, int64_t sample) const {
    return tensor + (way * batch + sample) * cells * width;
  }
  const float* cells_of(const float* tensor, int64_t way, int64_t sample) const {
    return tensor + (way * batch + sample) * cells * width;
  }
};

constexpr int TAPS = 4, REACH = TAPS - 1;

// Bias plus taps times tokens, the farthest first.
CELLVIM_INLINE vec convolve(vec bias, const vec* tap, vec far3, vec far2, vec far1, vec here) {
  return fma(tap[3], here, fma(tap[2], far1, fma(tap[1], far2, fma(tap[0], far3, bias))));
}

// Taps of one vector of channels. Packed as (2, E, 4) in memory: given here as rows (2, 4, E).
struct Taps {
  vec tap[2][TAPS], bias[2];
  template <class Lanes>
  Taps(const float* rows, const float* biases, int64_t width, int64_t e, Lanes lanes) {
    for (int way = 0; way < 2; ++way) {
      for (int k = 0; k < TAPS; ++k) tap[way][k] = load(rows + (way * TAPS + k) * width + e, lanes);
      bias[way] = load(biases + way * width + e, lanes);
    }
  }
};

}  // namespace cellvim
