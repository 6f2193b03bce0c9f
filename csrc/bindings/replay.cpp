#include "common.hpp"

void bind_replay(py::module_& m) { static_cast<void>(m); }
