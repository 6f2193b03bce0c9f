#include "random.hpp"

#include "common.hpp"

void bind_random(py::module_& m) {
  m.def(
      "philox",
      [](std::uint64_t key, std::uint64_t counter, py::ssize_t blocks) {
        if (blocks < 0) throw py::value_error("blocks must be >= 0");
        Vector<std::uint32_t> out({blocks, py::ssize_t{4}});
        auto* word = out.mutable_data();
        py::gil_scoped_release nogil;
        for (py::ssize_t b = 0; b < blocks; ++b) {
          const rlp::Block x = rlp::philox(key, counter + static_cast<std::uint64_t>(b));
          for (py::ssize_t j = 0; j < 4; ++j) word[4 * b + j] = x.word[j];
        }
        return out;
      },
      "key"_a, "counter"_a, "blocks"_a, "Blocks counter, counter + 1, ... of a stream: [blocks, 4] uint32.");
  m.def(
      "uniform",
      [](std::uint64_t key, std::uint64_t counter, py::ssize_t n) {
        if (n < 0) throw py::value_error("n must be >= 0");
        Vector<double> out(n);
        auto* data = out.mutable_data();
        py::gil_scoped_release nogil;
        rlp::Stream{key, counter}.uniform(data, static_cast<std::size_t>(n));
        return out;
      },
      "key"_a, "counter"_a, "n"_a, "n doubles in [0, 1); takes ceil(n / 2) blocks.");
  m.def(
      "normal",
      [](std::uint64_t key, std::uint64_t counter, py::ssize_t n) {
        if (n < 0) throw py::value_error("n must be >= 0");
        Vector<float> out(n);
        auto* data = out.mutable_data();
        py::gil_scoped_release nogil;
        rlp::Stream{key, counter}.normal(data, static_cast<std::size_t>(n));
        return out;
      },
      "key"_a, "counter"_a, "n"_a, "n standard normals, float32; takes ceil(n / 4) blocks.");
}
