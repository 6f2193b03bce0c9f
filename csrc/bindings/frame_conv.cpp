#include "frame_conv.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>

#include "common.hpp"

namespace {

using Numbers = Vector<float>;
using Frames = Vector<std::uint8_t>;

rlp::FrameConv conv_of(const Frames& frames, const Numbers& weight, double scale) {
  if (frames.ndim() != 4) throw py::value_error("frames must be [B, C, H, W]");
  if (weight.ndim() != 4 || weight.shape(0) < 1 || weight.shape(1) != frames.shape(1) || weight.shape(1) < 1 ||
      weight.shape(2) != weight.shape(3) || weight.shape(2) < 1 ||
      weight.shape(2) > std::min(frames.shape(2), frames.shape(3)))
    throw py::value_error("weight must be [O, C, k, k] for frames [B, C, H, W] of at least k x k");
  const auto size = [](py::ssize_t n) { return static_cast<std::size_t>(n); };
  return {size(frames.shape(1)), size(frames.shape(2)), size(frames.shape(3)),
          size(weight.shape(0)), size(weight.shape(2)), static_cast<float>(scale)};
}

void expect_map(const Numbers& a, const char* name, const rlp::FrameConv& conv, py::ssize_t count) {
  const py::ssize_t rows = static_cast<py::ssize_t>(conv.rows()), columns = static_cast<py::ssize_t>(conv.columns());
  if (a.ndim() != 4 || a.shape(0) != count || a.shape(1) != rows || a.shape(2) != columns ||
      a.shape(3) != static_cast<py::ssize_t>(conv.outputs))
    throw py::value_error(std::string(name) + " must be [B, H - k + 1, W - k + 1, O]");
}

}  // namespace

void bind_frame_conv(py::module_& m) {
  m.def(
      "bytes_set",
      [](const Frames& frames) { return rlp::bytes_set(frames.data(), static_cast<std::size_t>(frames.size())); },
      "frames"_a.noconvert(), "How many of these bytes are not 0.");
  m.def(
      "frame_conv",
      [](const Frames& frames, const Numbers& weight, const Numbers& bias, double scale, bool relu, Numbers& out) {
        const rlp::FrameConv conv = conv_of(frames, weight, scale);
        expect_map(out, "out", conv, frames.shape(0));
        if (bias.ndim() != 1 || bias.shape(0) != weight.shape(0)) throw py::value_error("bias must be [O]");
        const std::uint8_t* bytes = frames.data();
        const std::size_t count = static_cast<std::size_t>(frames.shape(0));
        const float* w = weight.data();
        const float* b = bias.data();
        float* to = out.mutable_data();
        py::gil_scoped_release nogil;
        rlp::frame_conv(conv, bytes, count, w, b, relu, to);
      },
      "frames"_a.noconvert(), "weight"_a.noconvert(), "bias"_a.noconvert(), "scale"_a, "relu"_a, "out"_a.noconvert(),
      "Write out [B, H - k + 1, W - k + 1, O] float32: frames [B, C, H, W] uint8, scaled, under weight [O, C, k, k] and bias [O] float32.");
  m.def(
      "frame_conv_gradients",
      [](const Frames& frames, const Numbers& weight, double scale, const std::optional<Numbers>& out, const Numbers& by_out,
         Numbers& by_weight, Numbers& by_bias) {
        const rlp::FrameConv conv = conv_of(frames, weight, scale);
        expect_map(by_out, "by_out", conv, frames.shape(0));
        if (out) expect_map(*out, "out", conv, frames.shape(0));
        if (by_weight.ndim() != 4 || !std::equal(by_weight.shape(), by_weight.shape() + 4, weight.shape()))
          throw py::value_error("by_weight must be shaped as weight");
        if (by_bias.ndim() != 1 || by_bias.shape(0) != weight.shape(0)) throw py::value_error("by_bias must be [O]");
        const std::uint8_t* bytes = frames.data();
        const std::size_t count = static_cast<std::size_t>(frames.shape(0));
        const float* raised = out ? out->data() : nullptr;
        const float* grad = by_out.data();
        float* to_weight = by_weight.mutable_data();
        float* to_bias = by_bias.mutable_data();
        py::gil_scoped_release nogil;
        rlp::frame_conv_gradients(conv, bytes, count, raised, grad, to_weight, to_bias);
      },
      "frames"_a.noconvert(), "weight"_a.noconvert(), "scale"_a, "out"_a.noconvert(), "by_out"_a.noconvert(), "by_weight"_a.noconvert(),
      "by_bias"_a.noconvert(),
      "Write the gradients of a frame_conv by weight and bias, from those by out [B, H - k + 1, W - k + 1, O]; `out`: its result where it had relu, else None.");
}
