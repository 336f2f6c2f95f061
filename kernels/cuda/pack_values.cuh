// Activations as f32 in registers: one, or the 16 bytes' worth that a thread moves at once.
#pragma once

#include "stream.cuh"

namespace arbor {

template <class T, int kCount> __device__ __forceinline__ void load_values(float *values, const T *from) {
  if constexpr (kCount > 1) {
#pragma unroll
    for (int first = 0; first < kCount; first += Pack<T>::kCount) {
      const Pack<T> pack = load_pack(from + first);
#pragma unroll
      for (int j = 0; j < Pack<T>::kCount; j++) values[first + j] = to_float(pack.at[j]);
    }
  } else
    values[0] = to_float(from[0]);
}

template <class T, int kCount> __device__ __forceinline__ void store_values(T *to, const float *values) {
  if constexpr (kCount > 1) {
    Pack<T> pack;
#pragma unroll
    for (int j = 0; j < kCount; j++) pack.at[j] = from_float<T>(values[j]);
    store_pack(to, pack);
  } else
    to[0] = from_float<T>(values[0]);
}

} // namespace arbor
