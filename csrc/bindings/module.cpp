// The extension module: each concept binds itself in a file of its own beside this one.

#include "common.hpp"

PYBIND11_MODULE(_core, m) {
  m.doc() = "The C++ core of rlplatform.";
  bind_build(m);
  bind_heap(m);
  bind_random(m);
  bind_returns(m);
  bind_replay(m);
  bind_replay_kernels_on_host(m);
  bind_random_kernels_on_host(m);
  bind_envs(m);
  bind_control(m);
  bind_minatar(m);
  bind_continual(m);
  bind_lanes(m);
  bind_pixels(m);
  bind_augment(m);
  bind_bootstrap(m);
  bind_clipped_loss(m);
  bind_frame_conv(m);
}
