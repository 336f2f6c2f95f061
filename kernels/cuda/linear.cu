// y = x Wᵀ + bias and its adapters, and the gradients.

#include "add_rows.cuh"
#include "convert.cuh"
#include "decode_product.cuh"
#include "lora_inside.cuh"
#include "products.cuh"

namespace {

constexpr int kWeightCopy = 9; // scratch memory: what attention has left of its plan is still wanted

bool rows_of_16_bytes(const void *y, const void *x, const void *weight, int64_t in, int64_t out) {
  return ((reinterpret_cast<uint64_t>(y) | reinterpret_cast<uint64_t>(x) | reinterpret_cast<uint64_t>(weight)) & 15) == 0 && in % 8 == 0 && out % 8 == 0;
}

} // namespace

int32_t arbor_linear(arbor_stream *stream, int32_t type, void *y, int32_t y_type, const void *x, const void *weight, int32_t weight_type,
                     const float *bias, int64_t tokens, int64_t in, int64_t out, const double *loras, int64_t lora_count, int32_t decode) {
  using namespace arbor;
  Adapters adapters;
  const bool valid = given(y, x, weight) && tokens >= 0 && in > 0 && out > 0 && (y_type == type || y_type == ARBOR_F32) &&
                     read_adapters(adapters, loras, lora_count, tokens, out, false);
  ARBOR_ENTER(stream, "arbor_linear", valid);
  if (tokens == 0) return ARBOR_OK;
  // Of rows that decode, the op that reads the outputs adds the adapters' share (lora_up.cuh).
  const bool few = decode && type == ARBOR_BF16;
  const bool roomy = weight_type == ARBOR_BF16_ROOMY;
  const int64_t ld = weight_ld(weight_type, in);
  if (few && (roomy || weight_type == ARBOR_BF16) && y_type == ARBOR_BF16 && rows_of_16_bytes(y, x, weight, in, out) && projects_down(type, x, in, adapters))
    return decode_adapted(stream, y, x, weight, weight_type, bias, tokens, in, out, adapters, roomy && decode == 2);
  const DividedAdapters divided = few ? DividedAdapters{{}, adapters} : divide_forward(type, x, weight_type, in, out, adapters);
  int32_t code = ARBOR_OK;
  if (divided.inside.count > 0)
    code = multiply_inside(stream, y, y_type, x, weight, tokens, in, out, divided.inside);
  else {
    Product base{tokens, out, in};
    base.a = {x, type, in};
    base.b = {weight_as(stream, type, weight, weight_type, out * in, kWeightCopy), type, ld, true};
    if (!base.b.data) return ARBOR_UNSUPPORTED;
    base.out = y, base.out_type = y_type, base.out_ld = out, base.by_row = true;
    if (few && !decodes_in_order(stream)) base.few_rows = true, base.family = out;
    const int32_t terms = type == ARBOR_BF16 && y_type == type ? terms_in_order(stream, out, in) : 1;
    code = product_in_terms(stream, "arbor_linear", base, terms);
  }
  return code == ARBOR_OK ? add_adapters(stream, type, y, y_type, x, bias, tokens, in, out, divided.beside) : code;
}

int32_t arbor_linear_backward(arbor_stream *stream, int32_t type, void *dx, const void *dy, const void *x, const void *weight, int32_t weight_type,
                              float *d_weight, float *d_bias, int64_t tokens, int64_t in, int64_t out, const double *loras, int64_t lora_count) {
  using namespace arbor;
  Adapters adapters;
  const bool valid = given(dy) && (!dx || weight) && (!d_weight || x) && tokens >= 0 && in > 0 && out > 0 && (lora_count == 0 || x || dx) &&
                     read_adapters(adapters, loras, lora_count, tokens, out, true);
  ARBOR_ENTER(stream, "arbor_linear_backward", valid);
  if (tokens == 0) return ARBOR_OK;
  int32_t code = ARBOR_OK;
  const DividedAdapters divided = divide_backward(type, dx, dy, x, weight_type, in, out, adapters);
  if (divided.inside.count > 0)
    code = multiply_back_adapted(stream, static_cast<bf16 *>(dx), static_cast<const bf16 *>(dy), static_cast<const bf16 *>(x), weight, tokens, in, out,
                                 divided.inside);
  else if (dx) {
    Product down{tokens, in, out};
    down.a = {dy, type, out};
    down.b = {weight_as(stream, type, weight, weight_type, out * in, kWeightCopy), type, weight_ld(weight_type, in)};
    if (!down.b.data) return ARBOR_UNSUPPORTED;
    down.out = dx, down.out_type = type, down.out_ld = in, down.by_row = true;
    code = product(stream, "arbor_linear_backward", down);
  }
  if (code == ARBOR_OK) code = add_adapter_gradients(stream, type, dx, dy, x, in, out, divided.beside);
  if (code == ARBOR_OK && d_weight) {
    Product weights{out, in, tokens};
    weights.a = {dy, type, out, true}, weights.b = {x, type, in};
    weights.out = d_weight, weights.out_type = ARBOR_F32, weights.out_ld = in, weights.beta = 1;
    code = product(stream, "arbor_linear_backward", weights);
  }
  if (code != ARBOR_OK || !d_bias) return code;
  ARBOR_BY_TYPE(type, "arbor_linear_backward", {
    const T *dys = static_cast<const T *>(dy);
    add_rows(stream, d_bias, tokens, out, [=] __device__(int64_t row, int64_t o) { return to_float(dys[row * out + o]); });
  });
  return launched(stream, "arbor_linear_backward");
}
