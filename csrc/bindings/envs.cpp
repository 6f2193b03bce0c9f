#include "bind_batch.hpp"
#include "envs/catch.hpp"

void bind_envs(py::module_& m) {
  bind_batch<rlp::Catch>(m, "CatchBatch", "N games of catch; environment i draws from the stream key[i].")
      .def(py::init([](const Vector<std::uint64_t>& key, std::int64_t threads, std::int64_t rows, std::int64_t columns) {
             check_batch(key, threads);
             if (rows < 2 || rows > 1024 || columns < 1 || columns > 1024)
               throw py::value_error("catch needs 2 to 1024 rows and 1 to 1024 columns");
             const rlp::Catch prototype(static_cast<std::int32_t>(rows), static_cast<std::int32_t>(columns));
             return std::make_unique<rlp::EnvBatch<rlp::Catch>>(prototype, key.data(), static_cast<std::size_t>(key.size()),
                                                                static_cast<std::size_t>(threads));
           }),
           "key"_a.noconvert(), "threads"_a, "rows"_a, "columns"_a);
}
