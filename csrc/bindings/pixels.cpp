#include "pixels.hpp"

#include "common.hpp"

namespace {

rlp::Size size_of(const py::tuple& shape) {
  if (shape.size() != 2) throw py::value_error("a size is (height, width)");
  const auto height = shape[0].cast<std::int64_t>(), width = shape[1].cast<std::int64_t>();
  if (height < 1 || width < 1 || height > 8192 || width > 8192) throw py::value_error("height and width must be in [1, 8192]");
  return {static_cast<std::size_t>(height), static_cast<std::size_t>(width)};
}

void expect_image(const Vector<std::uint8_t>& image, rlp::Size size, const char* name) {
  if (image.ndim() != 2 || static_cast<std::size_t>(image.shape(0)) != size.height ||
      static_cast<std::size_t>(image.shape(1)) != size.width)
    throw py::value_error(std::string(name) + " must be uint8 [" + std::to_string(size.height) + ", " +
                          std::to_string(size.width) + "]");
}

}  // namespace

void bind_pixels(py::module_& m) {
  py::class_<rlp::AreaResize>(m, "AreaResize", "Reduces uint8 images by pixel area, as OpenCV's INTER_AREA to the bit.")
      .def(py::init([](const py::tuple& source, const py::tuple& out) {
             return std::make_unique<rlp::AreaResize>(size_of(source), size_of(out));
           }),
           "source"_a, "out"_a, "source and out: (height, width), out nowhere larger.")
      .def(
          "__call__",
          [](rlp::AreaResize& resize, const Vector<std::uint8_t>& image) {
            expect_image(image, resize.source(), "image");
            Vector<std::uint8_t> result({resize.out().height, resize.out().width});
            resize(image.data(), result.mutable_data());
            return result;
          },
          "image"_a.noconvert())
      .def(
          "max_of",
          [](rlp::AreaResize& resize, const Vector<std::uint8_t>& a, const Vector<std::uint8_t>& b, Vector<std::uint8_t>& out) {
            expect_image(a, resize.source(), "a");
            expect_image(b, resize.source(), "b");
            expect_image(out, resize.out(), "out");
            std::vector<std::uint8_t> scratch(resize.source().area());
            resize.max_of(a.data(), b.data(), scratch.data(), out.mutable_data());
          },
          "a"_a.noconvert(), "b"_a.noconvert(), "out"_a.noconvert(), "Write the reduced maximum of two images into `out`.");
}
