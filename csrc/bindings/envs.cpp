#include "common.hpp"

void bind_envs(py::module_& m) { static_cast<void>(m); }
