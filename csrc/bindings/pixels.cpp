#include "common.hpp"

void bind_pixels(py::module_& m) { static_cast<void>(m); }
