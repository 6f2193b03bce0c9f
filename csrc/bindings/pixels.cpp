#include "pixels.hpp"

#include <string>

#include "common.hpp"
#include "screens.hpp"

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

void expect_slot(int slot) {
  if (slot != 0 && slot != 1) throw py::value_error("a slot is 0 or 1");
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
          "image"_a.noconvert());

  py::class_<rlp::Screens>(m, "Screens", "The last two screens of a game, and the frame they make.")
      .def(py::init([](const py::tuple& source, const py::tuple& out) {
             return std::make_unique<rlp::Screens>(size_of(source), size_of(out));
           }),
           "source"_a, "out"_a, "source and out: (height, width), out nowhere larger.")
      .def_property_readonly(
          "incoming",
          [](py::object self) {
            auto& screens = self.cast<rlp::Screens&>();
            return Vector<std::uint8_t>({screens.source().height, screens.source().width}, screens.incoming(), self);
          },
          "uint8 [height, width], for the emulator to write palette entries into before take().")
      .def(
          "take",
          [](rlp::Screens& screens, int slot) {
            expect_slot(slot);
            return screens.take(static_cast<std::size_t>(slot));
          },
          "slot"_a, "`incoming` becomes screen 0 (last but one) or 1 (last). False: learn() this slot before all else.")
      .def(
          "learn",
          [](rlp::Screens& screens, int slot, const Vector<std::uint8_t>& gray) {
            expect_slot(slot);
            expect_image(gray, screens.source(), "gray");
            screens.learn(static_cast<std::size_t>(slot), gray.data());
          },
          "slot"_a, "gray"_a.noconvert(), "The screen just taken, as gray levels.")
      .def(
          "frame",
          [](rlp::Screens& screens, int count, Vector<std::uint8_t>& out) {
            if (count != 1 && count != 2) throw py::value_error("a frame is made of 1 or 2 screens");
            expect_image(out, screens.out(), "out");
            screens.frame(count, out.mutable_data());
          },
          "count"_a, "out"_a.noconvert(), "Write into `out` the frame that the last `count` screens make.");
}
