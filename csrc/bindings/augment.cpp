#include "augment.hpp"

#include <cmath>

#include "common.hpp"

namespace {

void expect_shape(const py::array& array, const std::vector<py::ssize_t>& shape, const char* message) {
  if (array.ndim() != static_cast<py::ssize_t>(shape.size()) || !std::equal(shape.begin(), shape.end(), array.shape()))
    throw py::value_error(message);
}

template <typename T>
void shift_images(const py::array& image, const rlp::ImageShape& shape, const std::int64_t* shift, const float* intensity,
                  py::array& out) {
  const auto* from = static_cast<const std::uint8_t*>(image.data());
  const py::ssize_t batch = image.shape(0), apart = image.strides(0);
  auto* to = static_cast<T*>(out.mutable_data());
  py::gil_scoped_release nogil;
  for (py::ssize_t b = 0; b < batch; ++b)
    rlp::shift_image(from + b * apart, shape, {shift[2 * b], shift[2 * b + 1]}, intensity[b], to + b * shape.size());
}

}  // namespace

void bind_augment(py::module_& m) {
  m.def(
      "shift_images",
      [](const py::array& image, const Vector<std::int64_t>& shift, const Vector<float>& intensity, py::array& out) {
        if (!py::isinstance<py::array_t<std::uint8_t>>(image) || image.ndim() != 4)
          throw py::value_error("image must be uint8 [B, channels, height, width]");
        const rlp::ImageShape shape{image.shape(1), image.shape(2), image.shape(3)};
        const py::ssize_t batch = image.shape(0);
        if (shape.size() < 1) throw py::value_error("an image needs a pixel");
        if (image.strides(3) != 1 || image.strides(2) != shape.width || image.strides(1) != shape.area())
          throw py::value_error("the images may lie apart, but each must be contiguous");
        expect_shape(shift, {batch, 2}, "shift must be int64 [B, 2]");
        expect_shape(intensity, {batch}, "intensity must be float32 [B]");
        expect_shape(out, {batch, shape.height, shape.width, shape.channels}, "out must be [B, height, width, channels]");
        for (py::ssize_t b = 0; b < batch; ++b) {
          if (std::abs(shift.data()[2 * b]) > shape.height || std::abs(shift.data()[2 * b + 1]) > shape.width)
            throw py::value_error("a shift is larger than its image");
          if (!(intensity.data()[b] >= 0.0f && intensity.data()[b] <= 1e30f))
            throw py::value_error("an intensity must be finite and >= 0");
        }
        if (py::isinstance<Vector<float>>(out))
          shift_images<float>(image, shape, shift.data(), intensity.data(), out);
        else if (py::isinstance<Vector<std::uint16_t>>(out))
          shift_images<std::uint16_t>(image, shape, shift.data(), intensity.data(), out);
        else
          throw py::value_error("out must be contiguous float32, or uint16 for the bits of bfloat16");
      },
      "image"_a, "shift"_a.noconvert(), "intensity"_a.noconvert(), "out"_a,
      "out [B, height, width, channels] = intensity * image [B, channels, height, width], read at (y, x) + shift, clamped.");
}
